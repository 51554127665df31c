"""The XCAP server (RFC 4825, 3GPP TS 24.623): who asks, under which conditions, and what becomes of it.

A user reaches their own document and no other. Passwords, blocks after wrong ones and trusted peers are those of SIP; a
trusted peer names its user in X-3GPP-Asserted-Identity (TS 24.109). A change is durable before it is acknowledged, and
goes through only if nobody changed the rules meanwhile.
"""

import asyncio
import secrets
import time
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import structlog
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.error import CannotListenError

from protocols.net import Address
from protocols.records import DiversionRule, DiversionRules
from protocols.sip.digest import NonceSource, challenge, credentials_algorithm, verify
from protocols.sip.errors import SipParseError
from protocols.sip.headers import AuthParams, split_list, unquote_string
from protocols.sip.uri import parse_uri
from provisioning.config import Config
from sip_app.access.admission import Admission
from sip_app.access.guard import Guard, place_of
from sip_app.bounds import RateLimit
from sip_app.diversion.targets import ForwardingTargets
from sip_app.metrics import XCAP, limited
from sip_app.numbers import NumberPlan, domain_of, number_of
from sip_app.ports import Ports
from sip_app.transport.tls import ServerCreator, server_context
from sip_app.xcap.document import CAPABILITIES_TYPE, capabilities, render, to_bytes
from sip_app.xcap.editing import delete, found, put
from sip_app.xcap.errors import XcapError, conflict
from sip_app.xcap.http import Answer, Asked, Door, Lines
from sip_app.xcap.selector import NodeSelector, parse_path

AUID = "simservs.ngn.etsi.org"
DOCUMENT = "simservs.xml"
TRIES = 5
"""Times a change is worked out anew because somebody else's came first."""
_METHODS = ("GET", "HEAD", "PUT", "DELETE")
_CAPABILITIES = "/xcap-caps/global/index"
_NOTHING_SET = DiversionRules()
"""What a user has who never set anything: the service without rules, which is a document like any other."""
_ASSERTED = "x-3gpp-asserted-identity"

log = structlog.get_logger("sip_app.xcap")


class _Changed(Exception):
    """The rules are not what the change was worked out for; these they are."""

    def __init__(self, known: DiversionRules | None) -> None:
        super().__init__("changed meanwhile")
        self.known = known


class XcapServer:
    """Serves one port. `address` is where, once started."""

    def __init__(
        self, config: Config, ports: Ports, reactor: AsyncioSelectorReactor, guard: Guard | None = None
    ) -> None:
        self.address: Address | None = None
        self._ports = ports
        self._reactor: Any = reactor  # poses as the interfaces it implements; mypy sees only those
        self._plan = NumberPlan(config, ())
        self._targets = ForwardingTargets(self._plan, ports.credentials)
        self._guard = guard or Guard(config, time.monotonic)
        # A key of this run's own: counts are kept here only, so a nonce of another run or server could be replayed.
        self._nonces = NonceSource(secrets.token_bytes(32), config.sip.nonce_lifetime)
        self._door: Door | None = None
        self._listening: Any = None
        self._limits = config.xcap
        self._rate = RateLimit(config.xcap.requests_per_second)
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Serve by a changed configuration from now on; the port and its limits stay."""
        self._plan.reconfigure(config)
        self._admission = Admission(config.sip)
        self._algorithm = config.sip.digest_algorithm

    async def start(self) -> None:
        """Listen, unless there is no port or it is taken. Raises OSError for a certificate that cannot be read."""
        limits = self._limits
        if limits.port is None:
            return
        door = Door(self.answer, limits, self._reactor.callLater)
        try:
            if limits.tls_certificate is not None and limits.tls_key is not None:
                creator = ServerCreator(server_context(limits.tls_certificate, limits.tls_key))
                self._listening = self._reactor.listenSSL(limits.port, door, creator, interface=limits.bind)
            else:
                self._listening = self._reactor.listenTCP(limits.port, door, interface=limits.bind)
        except CannotListenError as error:
            why, where = error.socketError, Address(limits.bind, limits.port)
            log.warning("xcap.not_served", setting="xcap.port", address=str(where), error=why.strerror or str(why))
            return
        self._door = door
        where = self._listening.getHost()
        self.address = Address(where.host, where.port)
        log.info("xcap.started", address=str(self.address), tls=limits.tls_certificate is not None)

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._door is not None:
            stopped = self._listening.stopListening()
            if stopped is not None:
                await stopped.asFuture(asyncio.get_running_loop())
            self._door.close()
            self._door = None

    async def answer(self, asked: Asked) -> Answer:
        """One request, whatever it is."""
        try:
            answer = await self._serve(asked)
        except XcapError as error:
            answer = Answer(error.status, error.headers, error.body)
        except OSError as error:
            log.error("xcap.store_failed", error=str(error))
            answer = Answer(503, (("Retry-After", "1"),))
        XCAP.labels(asked.method if asked.method in _METHODS else "other", answer.status).inc()
        return answer

    async def _serve(self, asked: Asked) -> Answer:
        if not self._rate.allows(place_of(asked.client), time.monotonic()):
            limited("xcap.requests_per_second")
            raise XcapError(503, headers=(("Retry-After", "1"), ("Connection", "close")))
        if self._guard.blocked(place_of(asked.client)):
            limited("security.block_seconds")
            raise XcapError(403)
        if asked.refused:
            raise XcapError(asked.refused, headers=(("Connection", "close"),))
        if asked.method not in _METHODS:
            raise XcapError(405, headers=(("Allow", ", ".join(_METHODS)),))
        if asked.path == _CAPABILITIES:
            return _capable(asked)
        path = parse_path(asked.path, asked.query)
        if path.auid != AUID:
            raise XcapError(404)
        try:
            owner = self._plan.aor(parse_uri(path.user))
        except SipParseError:
            owner = None
        if owner is None:
            raise XcapError(404)
        if await self._identify(asked, owner) != owner:
            raise XcapError(403)
        if path.document != DOCUMENT:
            raise XcapError(404)
        if asked.method in ("GET", "HEAD"):
            return await self._get(asked, owner, path.node)
        return await self._change(asked, owner, path.node)

    # Who asks

    async def _identify(self, asked: Asked, owner: str) -> str:
        """The address of record of whoever asks; only that of `owner` can be proven here. Raises XcapError 401."""
        if self._admission.trusted(asked.client) and (asserted := asked.headers.get(_ASSERTED)):
            try:
                names = [self._plan.aor(parse_uri(unquote_string(name))) for name in split_list(asserted)]
            except SipParseError:
                names = []
            if owner in names and await self._ports.credentials.find(owner) is None:
                raise XcapError(404)
            return owner if owner in names else ""
        realm = self._plan.realm(domain_of(owner))
        try:
            given = AuthParams.parse(asked.headers.get("authorization", ""))
        except SipParseError:
            raise self._challenged(realm, asked) from None
        target = f"{asked.path}?{asked.query}" if asked.query else asked.path
        if (
            given.scheme.lower() != "digest"
            or given.get("realm") != realm
            or credentials_algorithm(given) != self._algorithm
            or given.get("uri") != target
        ):
            raise self._challenged(realm, asked)
        name = given.get("username")
        subscriber = await self._ports.credentials.find(f"{name}@{domain_of(owner)}")
        known = subscriber is not None and subscriber.enabled and name == subscriber.number
        secret = subscriber.ha1_for(self._algorithm) if subscriber is not None and known else None
        verdict = verify(given, asked.method, secret, self._nonces, time.time(), client=asked.client)
        if verdict == "ok":
            return f"{name}@{domain_of(owner)}"
        if verdict == "failed":
            log.info("xcap.refused", user=name[:64], peer=asked.client)
            if delay := self._guard.failed(asked.client):
                limited("security.failures_before_delay")
                await asyncio.sleep(delay)
        raise self._challenged(realm, asked, stale=verdict == "stale")

    def _challenged(self, realm: str, asked: Asked, *, stale: bool = False) -> XcapError:
        nonce = self._nonces.issue(time.time(), asked.client)
        value = str(challenge(realm, nonce, self._algorithm, stale=stale))
        return XcapError(401, headers=(("WWW-Authenticate", value),))

    # What they want

    async def _get(self, asked: Asked, owner: str, node: NodeSelector | None) -> Answer:
        rules = (await self._ports.diversions.get(owner)).own or _NOTHING_SET
        _check(asked, rules)
        body, media_type = found(rules, node)
        return Answer(200, (("Content-Type", media_type), *_tagged(rules)), body)

    async def _change(self, asked: Asked, owner: str, node: NodeSelector | None) -> Answer:
        known = (await self._ports.diversions.get(owner)).own
        media_type = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
        for _ in range(TRIES):
            rules = known or _NOTHING_SET
            _check(asked, rules)
            new = False
            if asked.method == "DELETE":
                wanted = delete(rules, node)
            else:
                wanted, new = put(rules, node, asked.body, media_type, self._limits.max_depth)
            if wanted is not None:
                wanted = await self._with_keys(owner, wanted, known)
            try:
                await self._ports.diversions.change(owner, _exchange(known, wanted))
            except _Changed as changed:
                known = changed.known
                continue
            log.info("xcap.changed", aor=owner, method=asked.method, number=number_of(owner))
            return Answer(201 if new else 200, _tagged(wanted or _NOTHING_SET))
        raise XcapError(503, headers=(("Retry-After", "1"),))

    async def _with_keys(self, owner: str, wanted: DiversionRules, known: DiversionRules | None) -> DiversionRules:
        """The rules with each target as the key it has here. Raises XcapError 409 for one nobody may forward to."""
        kept = {f"sip:{rule.target}": rule.target for rule in (known.rules if known else None) or ()}
        rules: list[DiversionRule] = []
        for rule in wanted.rules or ():
            target: str | None = rule.target
            if target:
                target = kept.get(target) or await self._targets.find(owner, parse_uri(target))
            if target is None:
                raise conflict("constraint-failure", "A target that is not allowed")
            rules.append(replace(rule, target=target))
        return wanted if wanted.rules is None else replace(wanted, rules=tuple(rules))


def _capable(asked: Asked) -> Answer:
    """What this server knows, for everybody to read."""
    if asked.method not in ("GET", "HEAD"):
        raise XcapError(405, headers=(("Allow", "GET, HEAD"),))
    return Answer(200, (("Content-Type", CAPABILITIES_TYPE),), capabilities("xcap-caps", AUID))


def _exchange(known: DiversionRules | None, wanted: DiversionRules | None) -> Any:
    """The change of the store that puts `wanted` in the place of `known`, and of nothing else."""

    def exchange(current: DiversionRules | None) -> DiversionRules | None:
        if current != known:
            raise _Changed(current)
        return wanted

    return exchange


def _tag(rules: DiversionRules) -> str:
    """The strong ETag: the same rules have the same one, whoever set them and however often."""
    return f'"{blake2b(to_bytes(render(rules)), digest_size=12).hexdigest()}"'


def _tagged(rules: DiversionRules) -> Lines:
    return (("ETag", _tag(rules)),)


def _check(asked: Asked, rules: DiversionRules) -> None:
    """If-Match and If-None-Match of the document as it is (RFC 9110 section 13). Raises XcapError: 412, or 304."""
    tag = _tag(rules)
    required, unwanted = asked.headers.get("if-match"), asked.headers.get("if-none-match")
    if required is not None and not _matches(required, tag):
        raise XcapError(412)
    if unwanted is not None and _matches(unwanted, tag, weak=True):
        reading = asked.method in ("GET", "HEAD")
        raise XcapError(304 if reading else 412, headers=(("ETag", tag),))


def _matches(header: str, tag: str, *, weak: bool = False) -> bool:
    listed = [entry.strip() for entry in header.split(",")]
    return "*" in listed or tag in listed or (weak and f"W/{tag}" in listed)
