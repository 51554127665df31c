"""Where a request for another domain goes (RFC 3263): transport, addresses, order, by NAPTR, SRV, A and AAAA records.

Asked with `twisted.names`, so nothing blocks; bounded in time, questions, targets and memory, because the records are
a stranger's. What they say is remembered for as long as they say, within limits.
"""

import asyncio
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import structlog
from twisted.internet.defer import TimeoutError as DnsTimeoutError
from twisted.names import client, dns
from twisted.names.error import DNSNameError, DomainError

from protocols.net import Address, Transport, is_numeric
from protocols.sip.uri import SipUri
from provisioning.config import DnsConfig
from sip_app.bounds import make_room
from sip_app.metrics import limited

RESOLV_CONF = "/etc/resolv.conf"
ATTEMPTS = (1, 2)
"""Seconds each name server is given, the first and the second time round."""
NEGATIVE_TTL = 30.0
"""Seconds it is remembered that a record does not exist."""
_NAPTR_SERVICES: dict[bytes, Transport] = {b"SIP+D2U": "udp", b"SIP+D2T": "tcp", b"SIPS+D2T": "tls"}
_SRV_PREFIXES: dict[Transport, str] = {"udp": "_sip._udp.", "tcp": "_sip._tcp.", "tls": "_sips._tcp."}
_DEFAULT_PORTS: dict[Transport, int] = {"tls": 5061}

log = structlog.get_logger("sip_app.proxy.resolver")

_PRIVATE = tuple(
    [ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")]
)

_Question = tuple[str, int]
_Records = tuple[Any, ...]


class Unresolved(Exception):
    """No next hop: for good, or (`temporary`) because nobody answered in time."""

    def __init__(self, reason: str, *, temporary: bool = False) -> None:
        super().__init__(reason)
        self.temporary = temporary


@dataclass(frozen=True, slots=True)
class Hop:
    """One place to try. `name` is the domain a TLS server there must prove to be (RFC 5922)."""

    transport: Transport
    address: Address
    name: str


class _Search:
    """The questions one request may still cost."""

    def __init__(self, resolver: "NextHops", lookups: int) -> None:
        self._resolver = resolver
        self._left = lookups

    async def records(self, name: str, kind: int) -> _Records:
        """The records of one kind a name has; none if it does not exist."""
        if self._left <= 0:
            limited("dns.max_lookups")
            return ()
        self._left -= 1
        return await self._resolver.ask(name, kind)


class NextHops:
    """Finds next hops. `serves(host)` says whether we have a socket that reaches an address of that family.

    `transports` are those we can call out over; `loopback` lets records lead to this machine itself.
    """

    def __init__(
        self,
        config: DnsConfig,
        reactor: object,
        serves: Callable[[str], bool],
        *,
        transports: Sequence[Transport] = ("udp", "tcp", "tls"),
        loopback: bool = False,
        chance: random.Random | None = None,
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._serves = serves
        self._transports = transports
        self._loopback = loopback
        self._chance = chance or random.SystemRandom()
        self._resolver: Any = None
        self._known: dict[_Question, tuple[float, _Records]] = {}
        self._asking: dict[_Question, asyncio.Task[_Records]] = {}
        self._pending = 0

    async def find(self, uri: SipUri) -> list[Hop]:
        """The places to try for a request to `uri`, best first, at least one. Raises Unresolved."""
        secure = uri.scheme == "sips"
        wanted = self._wanted(uri, secure=secure)
        if uri.address is not None:
            if not self._may_send(uri.address.host, named=True):
                raise Unresolved("no address of another host")
            transport: Transport = wanted or ("tls" if secure else "udp")
            port = uri.port or _DEFAULT_PORTS.get(transport, 5060)
            return [Hop(transport, Address(uri.address.host, port), uri.address.host)]
        name = (uri.param("maddr") or uri.host).rstrip(".").lower()
        if len(name) > 253 or not all(0 < len(label) < 64 for label in name.split(".")):
            raise Unresolved("no host name")
        if self._pending >= self._config.max_pending:
            limited("dns.max_pending")
            raise Unresolved("too many look-ups", temporary=True)
        self._pending += 1
        try:
            async with asyncio.timeout(self._config.timeout):
                hops = await self._search(uri, name, wanted, secure=secure)
        except TimeoutError:
            limited("dns.timeout")
            raise Unresolved("no answer from DNS", temporary=True) from None
        finally:
            self._pending -= 1
        if not hops:
            raise Unresolved("no such domain")
        if len(hops) > self._config.max_targets:
            limited("dns.max_targets")
        return hops[: self._config.max_targets]

    def _wanted(self, uri: SipUri, *, secure: bool) -> Transport | None:
        """The transport the URI itself asks for."""
        text = (uri.param("transport") or "").lower()
        if not text:
            return None
        for transport in self._transports:
            if text == transport:
                return "tls" if secure else transport
        raise Unresolved("no such transport")

    async def _search(self, uri: SipUri, name: str, wanted: Transport | None, *, secure: bool) -> list[Hop]:
        search = _Search(self, self._config.max_lookups)
        if uri.port is not None:
            transport: Transport = wanted or ("tls" if secure else "udp")
            return [Hop(transport, Address(host, uri.port), name) for host in await self._addresses(search, name)]
        usable = [each for each in self._transports if each == "tls" or not secure]
        services: list[tuple[Transport, str]] = []
        if wanted is None:
            services = [(found, target) for found, target in await self._services(search, name) if found in usable]
        else:
            usable = [wanted]
        hops: list[Hop] = []
        for transport, service in services or [(each, _SRV_PREFIXES[each] + name) for each in usable]:
            for target, port in await self._servers(search, service):
                hops += [Hop(transport, Address(host, port), name) for host in await self._addresses(search, target)]
                if len(hops) >= self._config.max_targets:
                    return hops
        if not hops:
            transport = wanted or ("tls" if secure else "udp")
            port = _DEFAULT_PORTS.get(transport, 5060)
            hops = [Hop(transport, Address(host, port), name) for host in await self._addresses(search, name)]
        return hops

    async def _services(self, search: _Search, name: str) -> list[tuple[Transport, str]]:
        """What NAPTR offers, best first: a transport and the name of its SRV records."""
        records = sorted(await search.records(name, dns.NAPTR), key=lambda record: (record.order, record.preference))
        return [
            (transport, _text(record.replacement))
            for record in records
            if record.flags.string.lower() == b"s"
            and (transport := _NAPTR_SERVICES.get(record.service.string.upper())) is not None
        ]

    async def _servers(self, search: _Search, service: str) -> list[tuple[str, int]]:
        """The hosts of a service in the order to try them: by priority, chance weighted within one (RFC 2782)."""
        left = [record for record in await search.records(service, dns.SRV) if _text(record.target)]
        ordered = []
        while left:
            best = min(record.priority for record in left)
            group = [record for record in left if record.priority == best]
            weights = [record.weight + 0.01 for record in group]
            chosen = self._chance.choices(group, weights)[0]
            left.remove(chosen)
            ordered.append((_text(chosen.target), chosen.port))
        return ordered

    async def _addresses(self, search: _Search, name: str) -> list[str]:
        """The addresses of a host that we can and may send to."""
        if is_numeric(name):
            return [name] if self._may_send(name) else []
        found: list[str] = []
        if self._serves("0.0.0.0"):
            found += [record.dottedQuad() for record in await search.records(name, dns.A)]
        if self._serves("::"):
            records = await search.records(name, dns.AAAA)
            found += [socket.inet_ntop(socket.AF_INET6, record.address) for record in records]
        return [host for host in found if self._may_send(host)][: self._config.max_targets]

    def _may_send(self, host: str, *, named: bool = False) -> bool:
        """False for an address nobody else's records may send us to; `named`: by the URI itself, which was allowed."""
        address = ip_address(host)
        if address.is_loopback:
            return self._loopback
        anywhere = named or self._loopback or self._config.private_addresses
        if not anywhere and any(address in network for network in _PRIVATE):
            return False
        return not (address.is_multicast or address.is_unspecified or address.is_reserved or address.is_link_local)

    # Questions and what is known

    async def ask(self, name: str, kind: int) -> _Records:
        """The records of a name, from memory if they may still be believed. Raises Unresolved if nobody says."""
        question = (name.rstrip(".").lower(), kind)
        now = asyncio.get_running_loop().time()
        known = self._known.get(question)
        if known is not None and known[0] > now:
            return known[1]
        task = self._asking.get(question)
        if task is None:
            task = self._asking[question] = asyncio.create_task(self._query(*question))
            task.add_done_callback(lambda _: self._asking.pop(question, None))
        return await asyncio.shield(task)

    async def _query(self, name: str, kind: int) -> _Records:
        if self._resolver is None:
            servers = [tuple(server) for server in self._config.addresses]
            resolv = None if servers else RESOLV_CONF
            self._resolver = client.Resolver(resolv, servers or None, ATTEMPTS, self._reactor)
        loop = asyncio.get_running_loop()
        try:
            answers, _, _ = await self._resolver.query(dns.Query(name, kind)).asFuture(loop)
        except DNSNameError:
            answers = []
        except (DomainError, DnsTimeoutError, OSError) as error:
            log.info("resolver.failed", name=name, error=type(error).__name__)
            raise Unresolved("no answer from DNS", temporary=True) from None
        found = [answer for answer in answers if answer.type == kind]
        ttl = min((float(answer.ttl) for answer in answers), default=NEGATIVE_TTL)
        self._remember((name, kind), loop.time() + min(ttl, self._config.max_ttl), found)
        return tuple([answer.payload for answer in found])

    def _remember(self, question: _Question, until: float, found: list[Any]) -> None:
        self._known.pop(question, None)
        make_room(self._known, self._config.cache_entries)
        self._known[question] = (until, tuple([answer.payload for answer in found]))


def _text(name: Any) -> str:
    """A DNS name as text; "" for the root, which means "none"."""
    return str(name.name.decode("ascii", "replace")).rstrip(".")
