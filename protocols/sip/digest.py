"""Digest authentication (RFC 7616, RFC 8760) for server and client: MD5, SHA-256 and SHA-512-256, qop=auth.

A server issues nonces it need not remember (`NonceSource`), challenges with `challenge`, and judges with `verify`;
a client answers with `authorize`. Times are seconds of any one clock. A nonce is good for as long as its key is kept:
the server makes a new key at each start, so those of the run before are stale.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from typing import Literal

from protocols.sip.errors import SipParseError
from protocols.sip.headers import AuthParams, quote_string
from protocols.sip.message import Request

Verdict = Literal["ok", "stale", "failed"]

MAX_NONCES = 20_000
"""How many nonces in use are remembered with their counts; when more are, the oldest go stale early."""
_CLOCK_SKEW = 5.0

_HASHES: dict[str, Callable[[bytes], str]] = {
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data).hexdigest(),
}
ALGORITHMS = tuple(_HASHES)


def _hash(algorithm: str, *parts: str) -> str:
    return _HASHES[algorithm](":".join(parts).encode("utf-8", "replace"))


def ha1(algorithm: str, user: str, realm: str, password: str) -> str:
    """H(user:realm:password) in hex: what a server stores instead of the password, and as secret as it."""
    return _hash(algorithm, user, realm, password)


def _response(credentials: AuthParams, algorithm: str, secret: str, method: str) -> str:
    get = credentials.get
    a2 = _hash(algorithm, method, get("uri"))
    if not get("qop"):
        return _hash(algorithm, secret, get("nonce"), a2)
    return _hash(algorithm, secret, get("nonce"), get("nc"), get("cnonce"), get("qop"), a2)


class NonceSource:
    """Nonces that carry their own time and signature, and the counts (nc) seen with those in use."""

    def __init__(self, secret: bytes, lifetime: float = 300.0, max_nonces: int = MAX_NONCES) -> None:
        self._secret = secret
        self._lifetime = lifetime
        self._max = max_nonces
        self._counts: dict[str, int] = {}
        self._forgotten_until = 0.0

    def issue(self, now: float, client: str = "") -> str:
        """A fresh nonce, good for this client host only: whoever answers it received it, so no forged source can."""
        stamp = f"{int(now * 1000):x}-{secrets.token_hex(6)}"
        return f"{stamp}-{self._sign(stamp, client)}"

    def issued(self, nonce: str, client: str = "") -> bool:
        """True for a nonce this source made for this client, however long ago."""
        stamp, _, signature = nonce.rpartition("-")
        return hmac.compare_digest(self._sign(stamp, client).encode(), signature.encode("utf-8", "replace"))

    def use(self, nonce: str, nc: int | None, now: float, client: str = "") -> bool:
        """Record one use with nonce count `nc`.

        False: not ours, not this client's, too old, or the count did not rise (a replay).
        """
        if not self.issued(nonce, client):
            return False
        issued = int(nonce.partition("-")[0], 16) / 1000
        if not now - self._lifetime <= issued <= now + _CLOCK_SKEW:
            return False
        if nc is None:
            return True
        seen = self._counts.get(nonce)
        if seen is None:
            if issued <= self._forgotten_until:
                return False
            self._remember(now)
        elif nc <= seen:
            return False
        self._counts[nonce] = nc
        return True

    def _remember(self, now: float) -> None:
        """Make room: drop the nonces used longest ago first, and take no older one for new ever after."""
        while self._counts:
            oldest = next(iter(self._counts))
            issued = int(oldest.partition("-")[0], 16) / 1000
            if len(self._counts) < self._max and issued >= now - self._lifetime:
                break
            del self._counts[oldest]
            self._forgotten_until = max(self._forgotten_until, issued)

    def _sign(self, stamp: str, client: str) -> str:
        mac = hashlib.blake2b(f"{stamp} {client}".encode("utf-8", "replace"), key=self._secret[:64], digest_size=10)
        return mac.hexdigest()


def challenge(realm: str, nonce: str, algorithm: str = "MD5", *, stale: bool = False) -> AuthParams:
    """A challenge for WWW-Authenticate or Proxy-Authenticate. Of several, send the strongest first (RFC 8760)."""
    params: list[tuple[str, str | None]] = [
        ("realm", quote_string(realm)),
        ("nonce", quote_string(nonce)),
        ("algorithm", algorithm),
        ("qop", '"auth"'),
    ]
    if stale:
        params.append(("stale", "true"))
    return AuthParams("Digest", tuple(params))


def find_credentials(request: Request, realm: str, header: str = "Authorization") -> AuthParams | None:
    """The request's digest credentials for this realm, or None. Unreadable ones count as none."""
    for value in request.headers.all(header):
        try:
            credentials = AuthParams.parse(value)
        except SipParseError:
            continue
        if credentials.scheme.lower() == "digest" and credentials.get("realm") == realm:
            return credentials
    return None


def credentials_algorithm(credentials: AuthParams) -> str:
    """The algorithm the client used, in the spelling of `ALGORITHMS` (MD5 when not stated)."""
    return credentials.get("algorithm").upper() or "MD5"


def verify(
    credentials: AuthParams,
    method: str,
    secret: str | None,
    nonces: NonceSource,
    now: float,
    *,
    client: str = "",
    allow_without_qop: bool = False,
) -> Verdict:
    """Judge credentials against `secret`, the HA1 for their algorithm (None for an unknown user: takes as long).

    "stale": the password is right, but the nonce too old, used before, or issued to another host than `client`;
    challenge again with stale=true. `now` is Unix seconds. `allow_without_qop` admits RFC 2069 clients, whose nonces
    can be replayed within their lifetime.
    """
    algorithm = credentials_algorithm(credentials)
    qop = credentials.get("qop")
    if algorithm not in _HASHES or qop not in ("auth", "") or (not qop and not allow_without_qop):
        return "failed"
    expected = _response(credentials, algorithm, secret or "", method).encode()
    given = credentials.get("response").lower().encode("utf-8", "replace")
    if not hmac.compare_digest(expected, given) or secret is None:
        return "failed"
    count: int | None = None
    if qop:
        try:
            count = int(credentials.get("nc")[:8], 16)
        except ValueError:
            return "failed"
    return "ok" if nonces.use(credentials.get("nonce"), count, now, client) else "stale"


def choose_challenge(challenges: Iterable[AuthParams]) -> AuthParams | None:
    """The first challenge a client can answer (the server's preference comes first), or None."""
    for offered in challenges:
        qop = [value.strip() for value in offered.get("qop").split(",")]
        if (
            offered.scheme.lower() == "digest"
            and credentials_algorithm(offered) in _HASHES
            and ("auth" in qop or qop == [""])
        ):
            return offered
    return None


def authorize(
    offered: AuthParams, method: str, uri: str, username: str, password: str, *, nc: int = 1, cnonce: str | None = None
) -> AuthParams:
    """A client's credentials for a challenge `choose_challenge` picked. `nc` rises by one with each use of a nonce."""
    algorithm = credentials_algorithm(offered)
    if algorithm not in _HASHES:
        raise SipParseError("unknown digest algorithm")
    realm = offered.get("realm")
    quoted = {"username": username, "realm": realm, "nonce": offered.get("nonce"), "uri": uri}
    params: list[tuple[str, str | None]] = [(name, quote_string(value)) for name, value in quoted.items()]
    params.append(("algorithm", algorithm))
    if offered.get("qop"):
        params += [("qop", "auth"), ("nc", f"{nc:08x}"), ("cnonce", quote_string(cnonce or secrets.token_hex(8)))]
    if offered.get("opaque"):
        params.append(("opaque", quote_string(offered.get("opaque"))))
    unsigned = AuthParams("Digest", tuple(params))
    response = _response(unsigned, algorithm, ha1(algorithm, username, realm, password), method)
    return AuthParams("Digest", (*params, ("response", quote_string(response))))
