"""What a transaction is known by and answered to: branches, keys, Via stamps, the ACK and CANCEL of an INVITE.

RFC 3261 sections 9.1, 17.1.1.3, 17.2.3 and 18.2; RFC 3581.
"""

from collections.abc import Iterable

from protocols.net import Address, Flow
from protocols.sip.headers import CSeq, Via
from protocols.sip.message import Request

MAGIC_COOKIE = "z9hG4bK"


def companion(request: Request, method: str, to: str | None, more: Iterable[tuple[str, str]] = ()) -> Request:
    """The ACK or CANCEL of an INVITE's own transaction (RFC 3261 sections 9.1 and 17.1.1.3)."""
    headers = (
        request.headers.with_("Via", request.headers.values("via")[0])
        .only("via", "route", "from", "to", "call-id")
        .with_("To", to or "")
        .add(("CSeq", str(CSeq(request.cseq.number, method))), ("Max-Forwards", "70"), *more)
    )
    return Request(method, request.uri, headers)


def server_key(request: Request, method: str) -> str:
    """What makes two requests one transaction (RFC 3261 section 17.2.3)."""
    via = request.top_via
    branch = via.branch
    if branch.startswith(MAGIC_COOKIE) and len(branch) > len(MAGIC_COOKIE):
        host, port = via.sent_by
        return f"{branch}\n{host}\n{port}\n{method}"
    number = request.cseq.number
    return f"{via}\n{request.uri}\n{request.call_id}\n{request.from_.tag}\n{number}\n{method}"


def client_key(branch: str, method: str) -> str:
    """What tells which request of ours a response answers (section 17.1.3)."""
    return f"{branch}\n{method}"


def stamped(request: Request, flow: Flow) -> Request:
    """The request with its top Via telling where it really came from (RFC 3261 section 18.2.1, RFC 3581)."""
    via = request.top_via
    params = dict(via.params)
    if "rport" in params:
        params["rport"] = str(flow.remote.port)
    elif via.host == flow.remote.host and "received" not in params:
        return request
    params["received"] = flow.remote.host
    return request.with_top_via(Via(via.transport, via.host, via.port, tuple(params.items())))


def response_flow(request: Request, flow: Flow) -> Flow:
    """Back over the connection; over UDP to the source, at the Via's port unless it asked for `rport`."""
    via = request.top_via
    if flow.reliable or via.param("rport") is not None or via.sent_by[1] == flow.remote.port:
        return flow
    return Flow(flow.transport, flow.local, Address(flow.remote.host, via.sent_by[1]), flow.id)
