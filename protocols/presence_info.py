"""Who is live, for others' phones: presence for buddy lists (PIDF, RFC 3863, with RPID, RFC 4480) and dialog state
for lamp keys (RFC 4235).

Both are whole documents. A dialog document for strangers holds no identifier of the call, so that nobody can use
it to reach into it (RFC 4235 section 6).
"""

from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

PIDF = "application/pidf+xml"
DIALOG_INFO = "application/dialog-info+xml"
LIVE = "Live"
"""The note a buddy list shows."""
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_PRESENCE = (
    'xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" '
    'xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid"'
)


@dataclass(frozen=True, slots=True)
class CallIds:
    """What identifies a call, from the side of the phone whose state is told."""

    call_id: str
    local_tag: str
    remote_tag: str


def presence(entity: str, *, registered: bool, live: bool) -> bytes:
    """Open: a call to `entity` reaches a phone, or a broadcast. Live shows as a note and as being on the phone."""
    basic = "open" if registered or live else "closed"
    note = f"<note>{LIVE}</note>" if live else ""
    person = ""
    if live:
        person = '<dm:person id="p"><rpid:activities><rpid:on-the-phone/></rpid:activities>'
        person += f"<dm:note>{LIVE}</dm:note></dm:person>"
    contact = f'<contact priority="1">{escape(entity)}</contact>' if basic == "open" else ""
    inner = f'<tuple id="t"><status><basic>{basic}</basic></status>{contact}{note}</tuple>{note}{person}'
    return f"{_HEAD}<presence {_PRESENCE} entity={quoteattr(entity)}>{inner}</presence>\n".encode()


def dialog_info(entity: str, version: int, dialog_id: str, *, live: bool, call: CallIds | None = None) -> bytes:
    """The broadcast as one dialog, confirmed or terminated; `call` only for the subscriber whose dialog it is."""
    named = f"id={quoteattr(dialog_id)}"
    if call is not None:
        named += f" call-id={quoteattr(call.call_id)} local-tag={quoteattr(call.local_tag)}"
        named += f" remote-tag={quoteattr(call.remote_tag)}"
    state = "confirmed" if live else "terminated"
    inner = f'<dialog {named} direction="initiator"><state>{state}</state></dialog>'
    opening = f'<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="{version}" state="full"'
    return f"{_HEAD}{opening} entity={quoteattr(entity)}>{inner}</dialog-info>\n".encode()
