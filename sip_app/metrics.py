"""What the application server counts (Prometheus). Incrementing is safe from anywhere; nothing here may block.

Every limit a stranger can run into counts in `LIMITED` under the name of its configuration key, so that an operator
sees which one to raise, or whom to block. What is counted for each message is a `Tally`; what merely is (dialogs,
connections, broadcasts) is asked for when scraped, by `sip_app.collector`.
"""

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from protocols.sip.message import Request, Response

METHODS = frozenset(
    (
        *("REGISTER", "INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "PRACK", "UPDATE", "INFO", "SUBSCRIBE", "NOTIFY"),
        *("MESSAGE", "PUBLISH", "REFER"),
    )
)
"""What a stranger may call a method is endless; what is counted is not."""

CONNECTIONS = Gauge("dialcast_sip_connections", "Connections that stand or are being made", ["transport"])
LIMITED = Counter(
    "dialcast_sip_limited_total", "Requests, messages or connections refused, cut or left out by a limit", ["limit"]
)
SUBSCRIPTIONS = Gauge("dialcast_subscriptions", "Subscriptions that stand", ["package"])
NOTIFICATIONS = Counter("dialcast_notifications_total", "NOTIFY requests sent, without retransmissions", ["package"])
PINS = Counter(
    "dialcast_pins_asked_total",
    "Viewers asked for a PIN, by how it ended (right, refused, none, gone, ended, full, unheard)",
    ["verdict"],
)
DIVERSIONS = Counter("dialcast_diversions_total", "Calls diverted, once for each hop, by kind", ["kind"])
XCAP = Counter("dialcast_xcap_requests_total", "XCAP requests answered, by method and status", ["method", "status"])
TEXTS = Counter("dialcast_group_messages_total", "Text messages taken within broadcasts", ["kind"])


class Tally(Collector):
    """A counter for the way of every message: plain integers by label values, for the event loop's thread alone.

    70 ns an increment; prometheus_client's own take a lock and a look-up, 1 us.
    """

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...]) -> None:
        self.counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._name, self._documentation, self._labels = name, documentation, labels
        REGISTRY.register(self)

    def describe(self) -> list[Metric]:
        """See prometheus_client."""
        return [CounterMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, count in list(self.counts.items()):
            family.add_metric(values, count)
        yield family


REQUESTS = Tally(
    "dialcast_sip_requests", "SIP requests, by direction (received, sent) and method", ("direction", "method")
)
RESPONSES = Tally(
    "dialcast_sip_responses",
    "SIP responses, by direction and status; those received by its class alone",
    ("direction", "method", "status"),
)
AUTHENTICATIONS = Tally(
    "dialcast_sip_authentications", "Credentials checked, by verdict (ok, failed, stale)", ("verdict",)
)


def limited(limit: str) -> None:
    """Something was refused, cut or left out because of `limit`: a configuration key, as `sip.max_connections`."""
    LIMITED.labels(limit).inc()


def count_received(message: Request | Response) -> None:
    """One more message came in, retransmissions included."""
    if isinstance(message, Request):
        method = message.method
        REQUESTS.counts["received", method if method in METHODS else "other"] += 1
    else:
        RESPONSES.counts["received", "", f"{message.status // 100}xx"] += 1


def count_request(method: str) -> None:
    """A request of ours goes out; its retransmissions do not count."""
    REQUESTS.counts["sent", method if method in METHODS else "other"] += 1


def count_answer(method: str, status: int) -> None:
    """A request is answered: by us, or by whom we passed it to."""
    RESPONSES.counts["sent", method if method in METHODS else "other", str(status)] += 1
