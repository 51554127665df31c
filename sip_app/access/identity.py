"""Identity: the caller is the authenticated address of record, never From (RFC 3261 section 22, RFC 8760, RFC 3325).

Unknown users are challenged and refused exactly like those who mistyped. A request from a trusted peer is believed.
"""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from protocols.net import Flow
from protocols.printable import discreet
from protocols.sip.digest import NonceSource, challenge, credentials_algorithm, find_credentials, verify
from protocols.sip.errors import SipParseError
from protocols.sip.headers import AuthParams, NameAddr
from protocols.sip.message import Request
from protocols.sip.uri import SipUri, TelUri, Uri, number_key, parse_uri
from provisioning.config import Config
from sip_app.access.admission import Admitted
from sip_app.access.guard import Guard
from sip_app.calls.incoming import Caller, Rejected
from sip_app.metrics import AUTHENTICATIONS, limited
from sip_app.numbers import NumberPlan, domain_of, number_of
from sip_app.ports import Credentials

_CREDENTIALS = frozenset(("authorization", "proxy-authorization"))
_NEVER_ASKED = frozenset(("ACK", "CANCEL", "OPTIONS"))
ANONYMOUS = "anonymous@anonymous.invalid"
MAX_WAITING = 1_000
"""Refusals that wait at a time; beyond it they are answered at once."""

MAX_CLAIM = 200
"""Characters of a From that was refused which the log shows."""

log = structlog.get_logger("sip_app.access.identity")


class Identity:
    """Names the caller of a request, or has it challenged. `clock` gives Unix seconds; `proven` is told each flow, and
    the client's host, over which a password was right."""

    def __init__(
        self,
        config: Config,
        plan: NumberPlan,
        credentials: Credentials,
        guard: Guard,
        proven: Callable[[Flow, str], object],
        clock: Callable[[], float],
    ) -> None:
        self.reconfigure(config)
        self._plan = plan
        self._credentials = credentials
        self._guard = guard
        self._proven = proven
        # A key of this run's own: counts are kept here only, so a nonce of another run or server could be replayed.
        self._nonces = NonceSource(secrets.token_bytes(32), config.sip.nonce_lifetime)
        self._waiting = 0
        self._clock = clock

    def reconfigure(self, config: Config) -> None:
        """Challenge by a changed configuration from now on."""
        self._algorithm = config.sip.digest_algorithm

    def offers(self, request: Request) -> bool:
        """True if the request brings credentials, good or bad."""
        return request.headers.has_any(_CREDENTIALS)

    def must_ask(self, request: Request) -> bool:
        """True if the request brings no credentials, and only a trusted peer's would be served without."""
        return not (request.method in _NEVER_ASKED or self.offers(request) or self._plan.guests)

    def asked(self, admitted: Admitted) -> Rejected:
        """The challenge for such a request."""
        if admitted.connected:
            self._guard.scanned(admitted.client.host, challenged=True)
        return self.challenged(admitted.request, admitted.client.host)

    async def identify(self, admitted: Admitted) -> Caller:
        """Who sent this. Raises `Rejected`: 401 or 407 to be asked, 403 when From (or a REGISTER's To) is another."""
        request = admitted.request
        if admitted.trusted:
            self._proven(admitted.flow, admitted.flow.remote.host)
            return self._asserted(admitted)
        registering = request.method == "REGISTER"
        home = self._plan.home(request)
        realm = self._plan.realm(home)
        given = find_credentials(request, realm, "Authorization" if registering else "Proxy-Authorization")
        if given is None and not registering:
            given = find_credentials(request, realm)
        if given is None:
            if self._plan.guests and request.method == "INVITE":
                return Caller(ANONYMOUS, number_of(ANONYMOUS), False, admitted.client)
            raise self.challenged(request, admitted.client.host)
        aor = await self._authenticate(admitted, given, home)
        names = (request.from_.uri, request.to.uri) if registering else (request.from_.uri,)
        for uri in names:
            if self._plan.aor(uri, home) != aor:
                log.warning("identity.mismatch", aor=aor, claimed=_claimed(uri), peer=str(admitted.client))
                raise Rejected(403, "From Is Not You" if self._plan.ours(uri) else "Domain In From Is Not Served Here")
        return Caller(aor, number_of(aor), True, admitted.client)

    async def _authenticate(self, admitted: Admitted, given: AuthParams, home: str) -> str:
        request, client, nonce = admitted.request, admitted.client.host, given.get("nonce")
        if not self._nonces.issued(nonce, client):
            # Of a restarted server, or made up: whoever does that learns nothing of passwords, and nobody is looked up.
            AUTHENTICATIONS.counts[("stale",)] += 1
            raise self.challenged(request, client, stale=True)
        name = given.get("username")
        aor = f"{name}@{home}"
        subscriber = await self._credentials.find(aor)
        secret = None
        if subscriber is not None and subscriber.enabled and name == subscriber.number:
            secret = subscriber.ha1_for(self._algorithm)
        if credentials_algorithm(given) != self._algorithm:
            raise self.challenged(request, client)
        verdict = verify(given, request.method, secret, self._nonces, self._clock(), client=client)
        AUTHENTICATIONS.counts[(verdict,)] += 1
        if verdict == "ok":
            self._check_meant(request, given.get("uri"), aor, client)
            self._guard.authenticated(client, nonce)
            self._proven(admitted.flow, client)
            return aor
        refusal = self.challenged(request, client, stale=verdict == "stale")
        if verdict == "failed":
            log.info("identity.refused", user=name[:64], method=request.method, peer=client)
            await self._wait(self._guard.failed(client))
        raise refusal

    def _check_meant(self, request: Request, written: str, aor: str, client: str) -> None:
        """Raises `Rejected` 400 if credentials were made for another resource (RFC 7616 section 3.4.6): somebody on
        the way could have turned a call aside."""
        if self._meant(request, written, domain_of(aor)):
            return
        told = (discreet(request.uri)[:MAX_CLAIM], discreet(written)[:MAX_CLAIM])
        log.warning("identity.other_uri", aor=aor, method=request.method, asked=told[0], meant=told[1], peer=client)
        raise Rejected(400, "Credentials For Another URI")

    def _meant(self, request: Request, written: str, home: str) -> bool:
        """True if the digest's `uri` and the Request-URI are one, as far as SIP can ask for that.

        RFC 3261 section 22.4 (6) is more lenient than HTTP, since proxies on the way may change the Request-URI. So
        these pass too, of requests to us: to the server itself (REGISTER above all) and within a dialog, where it is a
        Contact that NATs, session borders and strict routers (section 16.4) rewrite, any; behind a proxy, who may have
        forwarded the call, any of our domains; from a phone itself another host for the same number, or what names no
        number or cannot be read (sipp writes `sip:::1:5060`). What goes to another domain must be meant so, wherever it
        comes from.
        """
        if written == request.uri:
            return True
        asked, meant = request.parsed_uri, _read(written)
        if not self._plan.ours(asked):
            return meant is not None and _place(meant) == _place(asked)
        wanted = self._plan.aor(asked, home)
        if wanted is None or request.to.tag or not isinstance(meant, SipUri) or not meant.decoded_user:
            return True
        try:
            if not self._plan.ours(meant):
                return number_key(meant, domain_of(wanted)) == wanted
            return len(request.vias) > 1 or self._plan.aor(meant, home) in (wanted, None)
        except SipParseError:
            return False

    def proves(self, admitted: Admitted) -> bool:
        """True if a request's credentials carry a nonce that was sent to its address: it can be no forged source."""
        headers, client = admitted.request.headers, admitted.client.host
        for line in (*headers.all("authorization"), *headers.all("proxy-authorization")):
            with suppress(SipParseError):
                if self._nonces.issued(AuthParams.parse(line).get("nonce"), client):
                    return True
        return False

    async def _wait(self, seconds: float) -> None:
        """Let somebody who guesses wait, unless too many wait already."""
        if seconds and self._waiting < MAX_WAITING:
            limited("security.failures_before_delay")
            self._waiting += 1
            try:
                await asyncio.sleep(seconds)
            finally:
                self._waiting -= 1

    def challenged(self, request: Request, client: str, *, stale: bool = False) -> Rejected:
        """The refusal that asks the host `client` for credentials: only from there can it be answered."""
        nonce = self._nonces.issue(self._clock(), client)
        if stale:
            self._guard.know(nonce)
        value = str(challenge(self._plan.realm(self._plan.home(request)), nonce, self._algorithm, stale=stale))
        if request.method == "REGISTER":
            return Rejected(401, headers=(("WWW-Authenticate", value),))
        return Rejected(407, headers=(("Proxy-Authenticate", value),))

    def _asserted(self, admitted: Admitted) -> Caller:
        """Who a trusted peer says the caller is: P-Asserted-Identity, else From."""
        request = admitted.request
        name = request.from_
        if asserted := request.headers.values("p-asserted-identity"):
            try:
                name = NameAddr.parse(asserted[0])
            except SipParseError:
                raise Rejected(400, "Unreadable P-Asserted-Identity") from None
        aor = self._plan.aor(name.uri)
        if aor is None:
            if not isinstance(name.uri, SipUri | TelUri):
                raise Rejected(403, "Caller Of No Known Kind")
            aor = f"{name.uri.decoded_user}@{name.uri.host}" if isinstance(name.uri, SipUri) else ANONYMOUS
        return Caller(aor, number_of(aor), True, admitted.client)


def _claimed(uri: Uri) -> str:
    """A URI of From or To as the log shows it: who is named, not by which password, nor with what else."""
    plain = replace(uri.without_params(), password=None) if isinstance(uri, SipUri) else uri
    return discreet(str(plain))[:MAX_CLAIM]


def _read(written: str) -> Uri | None:
    try:
        return parse_uri(written)
    except SipParseError:
        return None


def _place(uri: Uri) -> tuple[str | int | None, ...] | str:
    """Whom and where a URI names; most parameters aside, which proxies add and take."""
    return (uri.decoded_user, uri.host, uri.port, uri.param("maddr")) if isinstance(uri, SipUri) else str(uri)
