"""OPTIONS outside dialogs (RFC 3261 section 11): who is told what this server can do, and who may ask a phone."""

from sip_app.calls.capabilities import CALL_CAPABILITIES, CAPABILITIES
from sip_app.calls.incoming import HeaderList, Rejected
from sip_app.numbers import ForeignTarget, LocalNumber, ServiceCode, ServiceNumber, Target


def asks_phones(target: Target, *, known: bool) -> bool:
    """True where the phones of a number answer: for `known` senders, so that strangers cannot try numbers out."""
    return known and isinstance(target, LocalNumber)


def capabilities_of(target: Target, allow_events: HeaderList) -> HeaderList:
    """What to answer for a target ourselves. Raises `Rejected`: 403 where that is not our business."""
    if isinstance(target, ForeignTarget):
        raise Rejected(403, "Foreign Domain")
    if isinstance(target, ServiceNumber | ServiceCode):
        return CALL_CAPABILITIES
    return (*CAPABILITIES, *allow_events)
