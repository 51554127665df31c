"""What the application server holds at this moment, asked for whenever the metrics are scraped (Prometheus)."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sip_app.broadcast.group import Broadcasting
from sip_app.server import ApplicationServer


class ServerCollector(Collector):
    """What one server holds at the moment of the scrape.

    `registrations` gives the numbers registered and their contacts; the store counts them shortly before.
    """

    def __init__(
        self, server: ApplicationServer, service: Broadcasting, registrations: Callable[[], tuple[int, int]]
    ) -> None:
        self._server = server
        self._service = service
        self._registrations = registrations

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        endpoint, service = self._server.endpoint, self._service
        numbers, contacts = self._registrations()
        groups = [*service.open.values(), *service.closing]
        states = dict.fromkeys(("opening", "live", "lost", "closing"), 0)
        for group in groups:
            states[group.state] += 1
        yield _gauge("dialcast_sip_transactions", "SIP transactions held", endpoint.transactions)
        yield _gauge("dialcast_sip_dialogs", "Answered calls held", len(endpoint.dialogs))
        yield _gauge("dialcast_sip_early_dialogs", "Calls not answered yet", len(endpoint.early))
        yield _gauge("dialcast_blocked", "Addresses and accounts blocked", len(self._server.guard.blocks()))
        yield _gauge("dialcast_registered_numbers", "Numbers with a phone registered", numbers)
        yield _gauge("dialcast_registered_contacts", "Phones registered", contacts)
        yield _gauges("dialcast_broadcasts", "Broadcasts held, by state", "state", states)
        yield _gauge("dialcast_viewers", "Views that stand", sum(len(group.viewers) for group in groups))
        links = {str(link.address): link for link in service.link.links}
        up = {name: float(link.up) for name, link in links.items()}
        rtt = {name: link.rtt for name, link in links.items() if link.rtt is not None}
        yield _gauges("dialcast_relay_up", "1 while the control link to a relay stands, by its address", "relay", up)
        yield _gauges(
            "dialcast_relay_rtt_seconds", "What a relay's last answer to a ping took, by its address", "relay", rtt
        )


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value)


def _gauges(name: str, documentation: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
