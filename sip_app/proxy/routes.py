"""Record-Route entries that remember both flows of a call, signed, so that the proxy itself need not (RFC 3261 16.6).

Only a dialog that was let in has such an entry: a request that brings it back needs no new challenge, and can reach
nobody but the other side of its own dialog, nor later than `sip.route_lifetime` after it was made. (A target refresh
cannot renew it: the route set of a dialog stays as it began, RFC 3261 section 12.2.) It survives a restart as far as
the flows do.
"""

import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b, sha256

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.net import Address, Flow, uri_transport
from protocols.sip.headers import NameAddr
from protocols.sip.message import Request
from protocols.sip.uri import SipUri
from sip_app.metrics import limited

_SIGNATURE_BYTES = 12
_NONCE_BYTES = 12
_SEPARATOR = "|"
_FORM = "2"
"""The form of a token, signed with it: one of another form is none."""


def _packed(flow: Flow) -> tuple[str, ...]:
    return flow.transport, *map(str, flow.local), *map(str, flow.remote), str(flow.id)


@lru_cache(4096)
def _unpacked(fields: tuple[str, ...], same_process: bool) -> Flow:
    """The flow; one value for all calls of a phone, as their transactions hold it for 32 s."""
    transport, local_host, local_port, host, port, number = fields
    local, remote = Address(local_host, int(local_port)), Address(host, int(port))
    return Flow(transport, local, remote, int(number) if same_process else 0)  # type: ignore[arg-type]  # signed by us


def _side(tag: str) -> str:
    return sha256(tag.encode("utf-8", "replace")).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class DialogRoute:
    """The two flows of a proxied dialog; `caller_side` is a hash of the caller's tag, which tells the direction."""

    caller: Flow
    callee: Flow
    caller_side: str
    names: tuple[str, str] | None = None
    """What the callee is called on its own side, and on the caller's, where a diversion must not show."""

    def onward(self, request: Request) -> Flow:
        """The flow a request of this dialog goes out on: away from whoever sent it."""
        return self.callee if self._from_caller(request) else self.caller

    def renamed(self, request: Request) -> Request:
        """The request with the callee called what it is called on the side it goes to."""
        if self.names is None:
            return request
        there, here = self.names
        name, party, uri = ("To", request.to, there) if self._from_caller(request) else ("From", request.from_, here)
        tag = f";tag={party.tag}" if party.tag else ""
        return replace(request, headers=request.headers.with_(name, f"<{uri}>{tag}"))

    def _from_caller(self, request: Request) -> bool:
        return _side(request.from_.tag) == self.caller_side


class Seal:
    """Text in the user part of a URI of ours that only we, or a server with the same store, can have written."""

    def __init__(self, key: bytes) -> None:
        self._key = key[:64]

    def close(self, text: str, bound_to: str) -> str:
        """The text, signed together with `bound_to`, say a Call-ID."""
        payload = urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return f"{payload}.{self._signature(payload, bound_to)}"

    def open(self, token: str, bound_to: str) -> str | None:
        """The text of a token, if it was made for `bound_to`."""
        payload, _, signature = token.partition(".")
        expected = self._signature(payload, bound_to)
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            return None
        return urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()

    def hide(self, text: str, bound_to: str) -> str:
        """The text, such that nobody else can read it either."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return urlsafe_b64encode(nonce + self._cipher().encrypt(nonce, text.encode(), bound_to.encode())).decode()

    def reveal(self, hidden: str, bound_to: str) -> str:
        """What `hide` hid, in a token that was opened, so whole."""
        data = urlsafe_b64decode(hidden)
        return self._cipher().decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound_to.encode()).decode()

    def _cipher(self) -> AESGCM:
        return AESGCM(blake2b(key=self._key, digest_size=32, person=b"names").digest())

    def _signature(self, payload: str, bound_to: str) -> str:
        text = f"{payload}{_SEPARATOR}{bound_to}".encode("utf-8", "replace")
        return blake2b(text, key=self._key, digest_size=_SIGNATURE_BYTES).hexdigest()


class RouteSigner:
    """Makes and reads the user part of our Record-Route URIs. `process` names this run of the server; an entry is good
    for `lifetime` seconds by `clock`, Unix seconds."""

    def __init__(self, key: bytes, process: str, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._seal = Seal(key)
        self._process = process
        self._lifetime = lifetime
        self._clock = clock

    def token(self, request: Request, caller: Flow, callee: Flow, shown: str = "") -> str:
        """The user part for the dialog `request` (from the caller) may make; `shown` is the callee's URI on its own
        side, if that is not what the caller wrote, which then stays unreadable."""
        names = (self._seal.hide(f"{shown} {request.to.uri}", request.call_id),) if shown else ()
        until = str(round(self._clock() + self._lifetime))
        fields = (*_packed(caller), *_packed(callee), _side(request.from_.tag), self._process, until, *names)
        return self._seal.close(_SEPARATOR.join(fields), _FORM + request.call_id)

    def read(self, token: str, call_id: str) -> DialogRoute | None:
        """What a token says, if we made it for this Call-ID, not too long ago."""
        text = self._seal.open(token, _FORM + call_id)
        if text is None:
            return None
        fields = tuple(text.split(_SEPARATOR))
        if self._clock() > int(fields[14]):
            limited("sip.route_lifetime")
            return None
        same = fields[13] == self._process
        names = None
        if len(fields) > 15:
            shown, _, written = self._seal.reveal(fields[15], call_id).partition(" ")
            names = shown, written
        return DialogRoute(_unpacked(fields[0:6], same), _unpacked(fields[6:12], same), fields[12], names)


def record_routes(token: str, caller: tuple[Flow, Address], callee: tuple[Flow, Address]) -> list[str]:
    """The Record-Route values to put on top, topmost first: two where the sides differ (RFC 5658)."""
    one_side = uri_transport(caller[0]) == uri_transport(callee[0]) and caller[1] == callee[1]
    sides = [callee] if one_side else [callee, caller]
    return [f"<{SipUri(host, token, port)}{uri_transport(flow)};lr>" for flow, (host, port) in sides]


def without_own_routes(
    request: Request, names_us: Callable[[SipUri], bool], signer: RouteSigner
) -> tuple[Request, DialogRoute | None]:
    """The request without the Route entries that name us, and the dialog they tell of.

    A request from a strict router (RFC 3261 section 16.4) has our entry as Request-URI: its last Route is the target.
    """
    dialog = None
    uri = request.parsed_uri
    if isinstance(uri, SipUri) and uri.param("lr") is not None and names_us(uri) and request.routes:
        dialog = signer.read(uri.user or "", request.call_id)
        routes = [str(route) for route in request.routes]
        target = str(request.routes[-1].uri)
        request = Request(request.method, target, request.headers.with_("Route", *routes[:-1]), request.body)
    routes_left: list[NameAddr] = list(request.routes)
    while routes_left and isinstance(top := routes_left[0].uri, SipUri) and names_us(top):
        dialog = dialog or signer.read(top.user or "", request.call_id)
        del routes_left[0]
    if len(routes_left) != len(request.routes):
        headers = request.headers.with_("Route", *(str(route) for route in routes_left))
        request = replace(request, headers=headers)
    return request, dialog
