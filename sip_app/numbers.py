"""Number analysis: what a Request-URI asks for (RFC 3261 section 16.5), and addresses of record as keys.

Keys are always `number@domain`. A domain's aliases mean that domain; telephone numbers and this server's own addresses
(on any port) mean the domain of whoever asks, unless a URI parameter `domain` names another, as in the conference URI
of a broadcast. Numbers are plain digits; there are no emergency numbers here, 112 is a number like any other.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocols.sip.errors import SipParseError
from protocols.sip.message import Request
from protocols.sip.uri import OtherUri, SipUri, TelUri, Uri, number_key
from provisioning.config import Config, ServicePolicy, service_policies
from sip_app.calls.incoming import Rejected


@dataclass(frozen=True, slots=True)
class ServiceNumber:
    """A service number: go live, or watch if a diversion led here."""

    aor: str


@dataclass(frozen=True, slots=True)
class ServiceCode:
    """Something that starts like a code of TS 22.030, as dialled: `*21*1003#`."""

    text: str


@dataclass(frozen=True, slots=True)
class LocalNumber:
    """A number of a domain served here; whether anybody has it is not yet known."""

    aor: str


@dataclass(frozen=True, slots=True)
class ForeignTarget:
    """A URI of another domain. `key` is its `number@host`, which `sip.allow_targets` judges."""

    uri: SipUri
    key: str


@dataclass(frozen=True, slots=True)
class TheServer:
    """No user at all: the request is for this server itself."""


_SEPARATORS = re.compile(r"[-.()\s\x00-\x20\x7f]")
_NUMBER = re.compile(r"\+?[0-9*#]+")

Target = ServiceNumber | ServiceCode | LocalNumber | ForeignTarget | TheServer


def number_of(aor: str) -> str:
    """The number of an address of record."""
    return aor.partition("@")[0]


def domain_of(aor: str) -> str:
    """The domain of an address of record; a domain is its own."""
    return aor.rpartition("@")[2]


def spellings(key: str) -> set[str]:
    """A foreign `number@host` as written and, where that is another, without visual separators and parameters.

    A gateway may read `0-900.12;x=y` as 090012: what an operator denies must not depend on how it is written.
    """
    user, _, host = key.rpartition("@")
    plain = _SEPARATORS.sub("", user.partition(";")[0])
    return {key, f"{plain}@{host}"} if _NUMBER.fullmatch(plain) else {key}


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a configuration says of numbers, ready to be looked up; replaced whole."""

    domains: Mapping[str, str]
    """Names and aliases, each with its domain."""
    realms: Mapping[str, str]
    """The digest realm of each domain."""
    services: Mapping[str, ServicePolicy]
    allowed: tuple[re.Pattern[str], ...]
    crossing: bool
    guests: bool

    @classmethod
    def of(cls, config: Config) -> "_Rules":
        services = service_policies(config)
        return cls(
            {name: domain.name for domain in config.all_domains for name in (domain.name, *domain.aliases)},
            {domain.name: domain.digest_realm for domain in config.all_domains},
            services,
            tuple(re.compile(pattern) for pattern in config.sip.allow_targets),
            config.cross_domain_calls,
            any(policy.viewers == "everyone" for policy in services.values()),
        )


class NumberPlan:
    """Which hosts are ours and what our numbers mean. `own_hosts` are numeric addresses without brackets.

    `home` is, wherever it is asked for, the domain (or an address of record in it) of whoever asks.
    """

    def __init__(self, config: Config, own_hosts: Iterable[str]) -> None:
        self.domain = config.domain
        self._own_hosts = frozenset(own_hosts)
        self._rules = _Rules.of(config)

    def reconfigure(self, config: Config) -> None:
        """Go by a changed configuration from now on; the first domain stays."""
        self._rules = _Rules.of(config)

    def ours(self, uri: Uri) -> bool:
        """True if the URI lies within our domains; a telephone number always does."""
        return self._domain(uri, self.domain) is not None

    def home(self, request: Request) -> str:
        """The domain of whoever sent the request, as it claims: that of From (of To in a REGISTER), else that of the
        Request-URI, else the first."""
        domains = self._rules.domains
        claimed = request.to.uri if request.method == "REGISTER" else request.from_.uri
        for uri in (claimed, request.parsed_uri):
            if isinstance(uri, SipUri) and (domain := domains.get(uri.host)) is not None:
                return domain
        return self.domain

    def realm(self, home: str) -> str:
        """The digest realm of a domain."""
        return self._rules.realms[home]

    def aor(self, uri: Uri, home: str = "") -> str | None:
        """The key of whoever the URI names, or None if that is nobody of our domains."""
        domain = self._domain(uri, domain_of(home) or self.domain)
        if domain is None:
            return None
        try:
            return number_key(uri, domain)
        except SipParseError:
            return None

    def expand(self, number: str, home: str = "") -> str:
        """A bare number as the key it has at home; a key stays as it is."""
        return number if "@" in number else f"{number}@{domain_of(home) or self.domain}"

    def local(self, aor: str) -> bool:
        """True for an address of record in one of our domains."""
        return domain_of(aor) in self._rules.realms

    def service(self, aor: str) -> ServicePolicy | None:
        """The policy of a service number; None if `aor` is none."""
        return self._rules.services.get(aor)

    def is_service(self, aor: str) -> bool:
        """True for the address of a service number."""
        return aor in self._rules.services

    @property
    def guests(self) -> bool:
        """True if some service number lets strangers watch."""
        return self._rules.guests

    def may_reach(self, source: str, target: str) -> bool:
        """True unless both are ours, of two domains that are kept apart."""
        apart = domain_of(source) != domain_of(target) and self.local(source) and self.local(target)
        return not apart or self._rules.crossing or self.may_leave_for(target)

    def may_leave_for(self, key: str) -> bool:
        """True if operator's patterns allow the foreign target `number@host`, as written and as the number it is."""
        allowed = self._rules.allowed
        return all(any(pattern.fullmatch(form) for pattern in allowed) for form in spellings(key))

    def analyse(self, uri: Uri, home: str = "") -> Target:
        """What a Request-URI asks for. Raises `Rejected`: 416 for a scheme nobody here speaks."""
        if isinstance(uri, OtherUri):
            raise Rejected(416)
        if isinstance(uri, SipUri) and not self.ours(uri):
            return ForeignTarget(uri, f"{uri.decoded_user}@{uri.host}")
        aor = self.aor(uri, home)
        if aor is None:
            return TheServer()
        if self.is_service(aor):
            return ServiceNumber(aor)
        if aor[0] in "*#" or aor.startswith("%23"):
            return ServiceCode(number_of(aor))
        return LocalNumber(aor)

    def _domain(self, uri: Uri, home: str) -> str | None:
        if not isinstance(uri, SipUri):
            return home if isinstance(uri, TelUri) else None
        if uri.host in self._own_hosts:
            named = uri.param("domain") if uri.params else None
            return self._rules.domains.get(named.lower()) if named else home
        return self._rules.domains.get(uri.host)
