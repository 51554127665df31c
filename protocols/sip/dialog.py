"""A dialog as a value (RFC 3261 section 12): made from an INVITE and its answer, kept as JSON, resumed after a restart.

Nothing here changes in place: each step gives the state that follows it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from protocols.net import Address, Flow
from protocols.sip.errors import SipParseError
from protocols.sip.headers import CSeq, NameAddr
from protocols.sip.message import Headers, Request, Response
from protocols.sip.uri import SipUri

DialogId = tuple[str, str, str]
"""Call-ID, local tag, remote tag."""
_TARGET_REFRESH = frozenset(("INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"))


@dataclass(frozen=True, slots=True)
class DialogState:
    """Everything needed to go on with a call.

    `local_uri` and `remote_uri` are From/To values without tag (`"Ann" <sip:1001@d>`), `remote_target` a bare URI,
    `local_target` our Contact value, `route_set` Route values, next hop first. `remote_cseq` is None until the peer
    has sent a request. `session_interval` is in seconds, 0 without a session timer (RFC 4028). `our_sdp` is kept where
    only a re-INVITE can refresh the session. `app` is the user's.
    """

    call_id: str
    local_tag: str
    remote_tag: str
    local_uri: str
    remote_uri: str
    local_cseq: int
    remote_cseq: int | None
    route_set: tuple[str, ...]
    remote_target: str
    local_target: str
    flow: Flow
    secure: bool = False
    session_interval: int = 0
    session_we_refresh: bool = False
    our_sdp: str = ""
    app: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> DialogId:
        """What `incoming_id` gives for the peer's requests in this dialog."""
        return self.call_id, self.local_tag, self.remote_tag

    @property
    def next_hop(self) -> str:
        """The URI of the next hop (first route, else the remote target), for when the flow is gone."""
        return str(NameAddr.parse(self.route_set[0]).uri) if self.route_set else self.remote_target

    def request(
        self,
        method: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> tuple[Self, Request]:
        """The next request in this dialog (section 12.2.1.1), without Via, and the state after it."""
        after = replace(self, local_cseq=self.local_cseq + 1)
        return after, after._build(method, after.local_cseq, headers, body, content_type)

    def ack(
        self,
        cseq: int,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> Request:
        """The ACK of the 2xx to our INVITE with this CSeq number; it does not count in the dialog's order."""
        return self._build("ACK", cseq, headers, body, content_type)

    def _build(
        self, method: str, cseq: int, headers: Iterable[tuple[str, str]], body: bytes, content_type: str | None
    ) -> Request:
        uri, routes = self.remote_target, self.route_set
        if routes:
            first = NameAddr.parse(routes[0]).uri
            if isinstance(first, SipUri) and first.param("lr") is None:
                uri, routes = str(first), (*routes[1:], f"<{uri}>")
        lines = [("Route", route) for route in routes]
        lines += [
            ("Max-Forwards", "70"),
            ("From", f"{self.local_uri};tag={self.local_tag}"),
            ("To", f"{self.remote_uri};tag={self.remote_tag}" if self.remote_tag else self.remote_uri),
            ("Call-ID", self.call_id),
            ("CSeq", str(CSeq(cseq, method))),
        ]
        if method in _TARGET_REFRESH:
            lines.append(("Contact", self.local_target))
        if content_type is not None:
            lines.append(("Content-Type", content_type))
        return Request(method, uri, Headers([*lines, *headers]), body)

    def accepts(self, request: Request) -> bool:
        """Whether the peer's request is in order (section 12.2.2). If not: answer 500, it overtook another."""
        return self.remote_cseq is None or request.method == "ACK" or request.cseq.number > self.remote_cseq

    def received(self, request: Request) -> Self:
        """The state after a request that `accepts` let in: its CSeq counted, its Contact and flow taken over."""
        after = self.refreshed(request) if request.method in _TARGET_REFRESH else self
        return after if request.method == "ACK" else replace(after, remote_cseq=request.cseq.number)

    def refreshed(self, message: Request | Response) -> Self:
        """The state after a target refresh by the peer: its request, or its 2xx to ours."""
        contacts = message.contacts
        return replace(self, remote_target=str(contacts[0].uri)) if contacts else self

    def on_flow(self, flow: Flow) -> Self:
        """The same dialog over another flow."""
        return replace(self, flow=flow)

    def with_app(self, **values: str) -> Self:
        """The same dialog with these keys of the user's set."""
        return replace(self, app={**self.app, **values})

    def to_json(self) -> str:
        """The state as one JSON object."""
        state = {item.name: getattr(self, item.name) for item in fields(self)}
        state["app"] = dict(self.app)
        state["flow"] = {item.name: getattr(self.flow, item.name) for item in fields(self.flow)}
        return json.dumps(state, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "DialogState":
        """The state `to_json` wrote. Raises SipParseError for anything else."""
        try:
            state: dict[str, Any] = json.loads(text)
            flow = state["flow"]
            flow |= {side: Address(str(flow[side][0]), int(flow[side][1])) for side in ("local", "remote")}
            state |= {"flow": Flow(**flow), "route_set": tuple(state["route_set"])}
            if not isinstance(state.get("app", {}), dict):
                raise TypeError("app")
            return cls(**state)
        except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
            raise SipParseError(f"not a stored dialog: {type(error).__name__}") from None


def _without_tag(value: NameAddr) -> str:
    return str(replace(value, params=tuple(item for item in value.params if item[0] != "tag")))


def uas_dialog(request: Request, local_tag: str, contact: str, flow: Flow) -> DialogState:
    """The dialog the called side enters with its 1xx or 2xx (section 12.1.1). `contact` is the Contact it answers with.

    Raises SipParseError if the request has no usable Contact.
    """
    if not request.contacts:
        raise SipParseError("no contact")
    return DialogState(
        call_id=request.call_id,
        local_tag=local_tag,
        remote_tag=request.from_.tag,
        local_uri=_without_tag(request.to),
        remote_uri=_without_tag(request.from_),
        local_cseq=0,
        remote_cseq=request.cseq.number,
        route_set=tuple([str(route) for route in request.record_routes]),
        remote_target=str(request.contacts[0].uri),
        local_target=contact,
        flow=flow,
        secure=request.uri[:5].lower() == "sips:",
    )


def uac_dialog(request: Request, response: Response, flow: Flow) -> DialogState:
    """The dialog the calling side enters with the peer's 1xx or 2xx (section 12.1.2).

    Raises SipParseError if the response has no usable Contact or no tag.
    """
    if not response.contacts or not response.to.tag:
        raise SipParseError("no contact or no tag")
    return DialogState(
        call_id=request.call_id,
        local_tag=request.from_.tag,
        remote_tag=response.to.tag,
        local_uri=_without_tag(request.from_),
        remote_uri=_without_tag(request.to),
        local_cseq=request.cseq.number,
        remote_cseq=None,
        route_set=tuple([str(route) for route in reversed(response.record_routes)]),
        remote_target=str(response.contacts[0].uri),
        local_target=request.headers.get("contact") or "",
        flow=flow,
        secure=request.uri[:5].lower() == "sips:",
    )


def incoming_id(message: Request | Response) -> DialogId:
    """The `DialogState.id` of the dialog a message from the peer belongs to."""
    if isinstance(message, Request):
        return message.call_id, message.to.tag, message.from_.tag
    return message.call_id, message.from_.tag, message.to.tag
