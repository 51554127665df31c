"""The record of one call to the service: a broadcast or a view, from its answer to its end. What bills and audits read.

Times are Unix seconds. Counters are the relay's for this call's leg: RTP packets, octets received with RTP headers and
sent without, `lost` as its receiver saw it. None while the call runs, and for good if the relay could not tell.
"""

from dataclasses import dataclass
from typing import Literal

EndedBy = Literal["", "party", "server"]


@dataclass(frozen=True, slots=True)
class CallRecord:
    """Written when the call is answered, and again, complete, when it is over."""

    record_id: str
    """CHANNEL/EPOCH for a broadcast, CHANNEL/EPOCH/LEG for a view: never used twice."""
    kind: Literal["broadcast", "view"]
    channel: str
    """The broadcaster's address of record."""
    party: str
    """Who called: the broadcaster, or the viewer; `number@domain` as far as known."""
    service: str
    """The service number of the broadcast."""
    started_at: float
    """When the call was taken up."""
    answered_at: float
    as_id: str
    relay_id: str
    ended_at: float | None = None
    """None while it runs."""
    ended_by: EndedBy = ""
    cause: int = 0
    """ITU-T Q.850: 16 regular end, 27 the party vanished, 41 a fault here."""
    reason: str = ""
    """The same in words."""
    packets_in: int | None = None
    octets_in: int | None = None
    packets_out: int | None = None
    octets_out: int | None = None
    lost: int | None = None
