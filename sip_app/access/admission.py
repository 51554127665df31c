"""Admission, the first step of every request: who really sent it, is it too much, may its headers be believed.

The client address is the transport's source, unless that is a trusted peer or an edge proxy of ours: then it is what
the outermost of those stamped on the Via hop below its own (RFC 3581). Limits and NAT handling use only this address.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from protocols.net import Address, Flow, is_host
from protocols.sip.errors import SipParseError
from protocols.sip.message import Request
from provisioning.config import Config, SipConfig
from sip_app.access.guard import Guard, place_of
from sip_app.bounds import MAX_TRACKED, RateLimit, make_room
from sip_app.calls.capabilities import Rejected
from sip_app.metrics import limited

RESPONSES_PER_REQUEST = 10
"""How many responses a second are taken from an address, as a multiple of its requests."""
MAX_PROVEN = 100_000
"""Addresses known to be somebody's who has an account; beyond it the oldest are forgotten."""
TOO_MUCH = Rejected(503, headers=(("Retry-After", "1"),))
"""The answer to a client behind a proxy that sends too much."""
_UNTRUSTED_HEADERS = frozenset(("p-asserted-identity", "p-preferred-identity", "history-info", "diversion"))


class Networks:
    """Configured networks, and which hosts lie in them; the answers are remembered, up to a bound."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ip_network(text) for text in networks]
        self._known: dict[str, bool] = {}

    def __contains__(self, host: str) -> bool:
        """Raises ValueError for what is no numeric address."""
        if not self._networks:
            return False
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= MAX_TRACKED:
                self._known.clear()
            address = ip_address(host)
            known = self._known[host] = any(address in network for network in self._networks)
        return known


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that passed: cleaned of what its sender may not claim."""

    request: Request
    flow: Flow
    client: Address
    trusted: bool
    relayed: bool = False
    """True if an edge proxy brought it: many clients share its flow."""

    @property
    def connected(self) -> bool:
        """True if the client's address is proven by a connection of its own."""
        return self.flow.reliable and not self.relayed

    def comes_from(self, host: str, client: str | None) -> bool:
        """True if a dialog's peer was heard there: `host` is its flow's; behind an edge proxy, which others share, it
        must also be the peer's `client` address (None: not known)."""
        here = self.flow.remote.host == host
        if here and self.relayed and not self.trusted:
            return client in (None, self.client.host)
        return here or self.trusted


class Admission:
    """The rules of this step, from the configuration."""

    def __init__(self, config: SipConfig, guard: Guard | None = None) -> None:
        self.guard = guard
        self._proven: dict[str, None] = {}
        self._take(config)

    def reconfigure(self, config: Config) -> None:
        """Judge by a changed configuration from now on."""
        self._take(config.sip)

    def _take(self, config: SipConfig) -> None:
        self._trusted = Networks(config.trusted_peers)
        self._edges = Networks(config.edge_proxies)
        self._behind_proxies = bool(config.trusted_peers or config.edge_proxies)
        self._rate = RateLimit(config.requests_per_second)
        self._response_rate = RateLimit(RESPONSES_PER_REQUEST * config.requests_per_second)
        self._strangers = RateLimit(config.unauthenticated_per_second)
        self._strange_responses = RateLimit(RESPONSES_PER_REQUEST * config.unauthenticated_per_second)

    def trusted(self, host: str) -> bool:
        """True for a configured peer."""
        return host in self._trusted

    def edge(self, host: str) -> bool:
        """True for an edge proxy of ours."""
        return host in self._edges

    def _forwards(self, host: str) -> bool:
        """True for whoever passes on what others send, and says truly where it came from."""
        return self._behind_proxies and (host in self._trusted or host in self._edges)

    def within_rate(self, flow: Flow, now: float, *, response: bool = False) -> bool:
        """Before a message is even parsed: may this source send one more? Trusted peers are judged by client later."""
        rate = self._response_rate if response else self._rate
        host = flow.remote.host
        if self._forwards(host):
            return True
        place = place_of(host) if ":" in host else host
        if not rate.allows(place, now):
            limited("sip.requests_per_second")
            return False
        return flow.reliable or self._knows(place, now, self._strange_responses if response else self._strangers)

    def prove(self, host: str) -> None:
        """Somebody has an account there, as he knew its password: requests from there cannot be forged ones only."""
        place = place_of(host)
        if place not in self._proven:
            make_room(self._proven, MAX_PROVEN)
            self._proven[place] = None

    def _knows(self, place: str, now: float, rate: RateLimit) -> bool:
        """True for an address that is proven, and for as many others as may be served together."""
        if place in self._proven or rate.allows("", now):
            return True
        limited("sip.unauthenticated_per_second")
        return False

    def refuses(self, request: Request, flow: Flow) -> bool:
        """True if this is to be dropped in silence, as its source is blocked. Trusted peers are judged by client."""
        guard, host = self.guard, flow.remote.host
        return guard is not None and not self._forwards(host) and guard.refuses(request, host)

    def client_address(self, request: Request, flow: Flow) -> Address:
        """Where the request comes from, as far as it can be believed. Raises SipParseError for no address at all."""
        client = flow.remote
        if not self._forwards(client.host):
            return client
        for via in request.vias[1:]:
            client = via.response_address
            try:
                if not self._forwards(client.host):
                    break
            except ValueError:
                break
        return client

    def admit(self, request: Request, flow: Flow, now: float) -> Admitted | None:
        """The request as it goes on; None if its client sends too much, or writes a Via that hides who it is."""
        trusted = self.trusted(flow.remote.host)
        if not trusted:
            if request.headers.has_any(_UNTRUSTED_HEADERS):
                headers = request.headers.without(*_UNTRUSTED_HEADERS)
                request = Request(request.method, request.uri, headers, request.body)
            if flow.remote.host not in self._edges:
                return Admitted(request, flow, flow.remote, False)
        try:
            client = self.client_address(request, flow)
        except SipParseError:
            return None
        if client != flow.remote:
            place = place_of(client.host)
            if not self._rate.allows(place, now):
                limited("sip.requests_per_second")
                return None
            if not trusted and not self._knows(place, now, self._strangers):
                return None
        if self.guard is not None and is_host(client.host) and self.guard.refuses(request, client.host):
            return None
        return Admitted(request, flow, client, trusted, relayed=True)
