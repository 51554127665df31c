"""What the relay holds and the engine has counted, as plain integers, asked for whenever the metrics are scraped."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from media_relay.relay import Relay


class RelayCollector(Collector):
    """Everything of one relay. `links` tells how many application servers are connected."""

    def __init__(self, relay: Relay, links: Callable[[], int]) -> None:
        self._relay = relay
        self._links = links

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        groups = list(self._relay.groups.by_id.values())
        legs = [leg for group in groups for leg in group.legs.values()]
        yield GaugeMetricFamily("dialcast_relay_groups", "Groups (broadcasts) held", len(groups))
        by_role = GaugeMetricFamily("dialcast_relay_legs", "Legs held, by role", labels=["role"])
        for role in ("source", "sink", "announcement"):
            by_role.add_metric([role], sum(leg.role == role for leg in legs))
        yield by_role
        lost = sum(leg.lost is not None for leg in legs)
        yield GaugeMetricFamily("dialcast_relay_legs_lost", "Legs that are not heard", lost)
        yield GaugeMetricFamily(
            "dialcast_relay_ports", "Media ports (RTP and RTCP pairs) open", len(self._relay.groups.ports)
        )
        yield GaugeMetricFamily("dialcast_relay_control_links", "Application servers connected", self._links())
        totals = self._relay.engine.totals()
        packets = CounterMetricFamily(
            "dialcast_relay_packets", "RTP packets, by direction (in, out)", labels=["direction"]
        )
        octets = CounterMetricFamily(
            "dialcast_relay_octets",
            "Octets of RTP packets received (in), of RTP payload sent (out)",
            labels=["direction"],
        )
        for direction, count, size in (
            ("in", totals.packets_in, totals.octets_in),
            ("out", totals.packets_out, totals.octets_out),
        ):
            packets.add_metric([direction], count)
            octets.add_metric([direction], size)
        yield packets
        yield octets
        dropped = CounterMetricFamily(
            "dialcast_relay_dropped_packets",
            "RTP packets dropped, by why: no_room (socket full), over_rate (relay.source_bitrate_max), "
            "unauthentic (SRTP with another key, or replayed)",
            labels=["why"],
        )
        dropped.add_metric(["no_room"], totals.no_room)
        dropped.add_metric(["over_rate"], totals.over_rate)
        dropped.add_metric(["unauthentic"], totals.unauthentic)
        yield dropped
        yield CounterMetricFamily("dialcast_relay_resent_packets", "RTP packets sent again after a NACK", totals.resent)
        yield GaugeMetricFamily(
            "dialcast_relay_keyframe_cache_bytes", "Held for viewers to start with", totals.cache_bytes
        )
