"""What the server tells of itself: structured events, and on request the trace of every SIP message.

The trace (`sip.received`, `sip.sent`, level debug) costs nothing while it is off: nobody formats a message then.
"""

from typing import Any

import structlog

from protocols.net import Flow
from protocols.printable import discreet
from protocols.sip.errors import SipParseError
from protocols.sip.message import Request, Response, parse_message
from protocols.sip.uri import SipUri, TelUri, Uri

log = structlog.get_logger("sip_app")
_TRACED_EXTRAS = ("reason", "history-info", "warning", "rseq", "contact", "event", "subscription-state")


def _number(uri: Uri) -> str:
    return (
        uri.decoded_user if isinstance(uri, SipUri) else uri.number if isinstance(uri, TelUri) else discreet(str(uri))
    )


def describe(message: Request | Response, flow: Flow) -> dict[str, Any]:
    """The fields of a trace event. What cannot be read of the message is left out."""
    fields: dict[str, Any] = {"peer": str(flow.remote), "transport": flow.transport, "has_sdp": False}
    if isinstance(message, Request):
        fields |= {"line": f"{message.method} {discreet(message.uri)}", "method": message.method}
    else:
        fields |= {"line": f"{message.status} {discreet(message.reason)}", "status": message.status}
    try:
        fields |= {
            "cseq": str(message.cseq),
            "call_id": discreet(message.call_id),
            "from_number": _number(message.from_.uri),
            "to_number": _number(message.to.uri),
            "has_sdp": bool(message.body) and message.content_type == "application/sdp",
            "extra": {
                name: discreet(value) for name in _TRACED_EXTRAS if (value := ", ".join(message.headers.all(name)))
            },
        }
    except SipParseError as error:
        fields["unreadable"] = str(error)
    return fields


class Trace:
    """Tells every message that comes and goes, if `on`."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def received(self, message: Request | Response, flow: Flow) -> None:
        """A message came in; call only if `on`."""
        log.debug("sip.received", **describe(message, flow))

    def sent(self, data: bytes, flow: Flow) -> None:
        """A message went out; call only if `on`."""
        try:
            fields = describe(parse_message(data), flow)
        except SipParseError as error:
            fields = {"peer": str(flow.remote), "transport": flow.transport, "unreadable": str(error)}
        log.debug("sip.sent", **fields)
