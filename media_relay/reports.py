"""What a leg did in all, told to the application server when it is removed: for the record of its call."""

from collections.abc import Iterator, Sequence

from media_relay.engine import Engine
from media_relay.legs import Leg
from protocols.control import PAGE_LEGS, LegReport, LegReports


def final_report(engine: Engine, leg: Leg) -> LegReport:
    """The leg's counters; ask before the engine forgets it."""
    state = engine.leg(leg.group_id, leg.leg_id)
    if leg.role == "source":
        streams = [engine.source(leg.group_id, kind) for kind in leg.media]
        known = [max(0, stream.reception.lost) for stream in streams if stream is not None]
    else:
        known = [medium.lost for medium in leg.media.values() if medium.lost is not None]
    return LegReport(
        leg_id=leg.leg_id,
        role=leg.role,
        packets_in=leg.packets_beside + (state.received if state else 0),
        octets_in=leg.octets_beside + (state.octets_received if state else 0),
        packets_out=state.packets if state else 0,
        octets_out=state.octets if state else 0,
        lost=sum(known) if known else None,
    )


def pages(group_id: str, epoch: int, reports: Sequence[LegReport]) -> Iterator[LegReports]:
    """The reports in events that fit the control link."""
    for start in range(0, len(reports), PAGE_LEGS):
        yield LegReports(group_id, epoch, tuple(reports[start : start + PAGE_LEGS]))
