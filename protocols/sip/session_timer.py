"""Session timers (RFC 4028): agree on an interval as the called side, then refresh or watch for refreshes."""

from dataclasses import dataclass
from typing import Literal

from protocols.sip.errors import BadRequest
from protocols.sip.message import REASONS, Request

MIN_SE = 90
"""No one may ask for less (section 4)."""
MAX_INTERVAL = 86_400
"""More than this no peer makes us raise ours to."""


@dataclass(frozen=True, slots=True)
class SessionTimer:
    """An agreed session interval in seconds, and which side of the INVITE (or UPDATE) refreshes it."""

    interval: int
    refresher: Literal["uac", "uas"]

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What the 2xx says; it requires `timer` of the peer only where the peer is to refresh (section 9)."""
        line = ("Session-Expires", f"{self.interval};refresher={self.refresher}")
        return (line, ("Require", "timer")) if self.refresher == "uac" else (line,)


def agree(request: Request, preferred: int = 1800, min_se: int = MIN_SE) -> SessionTimer:
    """The timer for an INVITE or UPDATE we accept (section 9), at most `preferred` seconds unless its Min-SE is higher.

    Raises BadRequest(422) when the peer asks for less than `min_se`: answer it with a `Min-SE` header. A peer that
    knows no timers is refreshed by us. Raises SipParseError for unreadable headers.
    """
    supported = "timer" in request.supported or "timer" in request.required
    asked = request.session_expires
    if asked is not None and asked < min_se and supported:
        raise BadRequest(422, REASONS[422])
    floor = max(min_se, request.min_se or 0)
    interval = max(floor, min(preferred, preferred if asked is None else asked))
    if not supported:
        return SessionTimer(interval, "uas")
    return SessionTimer(interval, "uas" if request.refresher == "uas" else "uac")


def deadline(interval: int, we_refresh: bool, refreshed_at: float) -> float:
    """When to refresh (halfway), or, where the peer should have, to send BYE: shortly before the end (section 10)."""
    return refreshed_at + (interval / 2 if we_refresh else interval - min(32.0, interval / 3))
