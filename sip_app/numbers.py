"""Number analysis: what a Request-URI asks for (RFC 3261 section 16.5), and addresses of record as keys.

Hosts that mean this server (the domain, its aliases, its own addresses on any port) are one domain: keys are always
`number@domain`. Numbers are plain digits; there are no emergency numbers here, 112 is a number like any other.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from protocols.sip.errors import SipParseError
from protocols.sip.uri import OtherUri, SipUri, TelUri, Uri, number_key
from provisioning.config import Config
from sip_app.calls import Rejected


@dataclass(frozen=True, slots=True)
class ServiceNumber:
    """The service number: go live, or watch if a diversion led here."""

    aor: str


@dataclass(frozen=True, slots=True)
class ServiceCode:
    """Something that starts like a code of TS 22.030, as dialled: `*21*1003#`."""

    text: str


@dataclass(frozen=True, slots=True)
class LocalNumber:
    """A number of this domain; whether anybody has it is not yet known."""

    aor: str


@dataclass(frozen=True, slots=True)
class ForeignTarget:
    """A URI of another domain. `key` is its `number@host`, which `sip.allow_targets` judges."""

    uri: SipUri
    key: str


@dataclass(frozen=True, slots=True)
class TheServer:
    """No user at all: the request is for this server itself."""


Target = ServiceNumber | ServiceCode | LocalNumber | ForeignTarget | TheServer


def number_of(aor: str) -> str:
    """The number of an address of record."""
    return aor.partition("@")[0]


class NumberPlan:
    """Which hosts are ours and what our numbers mean. `own_hosts` are numeric addresses without brackets."""

    def __init__(self, config: Config, own_hosts: Iterable[str]) -> None:
        self.domain = config.domain
        self._own_hosts = frozenset(own_hosts)
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Take the aliases, service numbers and allowed targets of a changed configuration; the domain stays."""
        self._ours = {config.domain, *config.domain_aliases, *self._own_hosts}
        self._services = frozenset(f"{number}@{config.domain}" for number in config.service.numbers)
        self._allowed = [re.compile(pattern) for pattern in config.sip.allow_targets]

    def ours(self, uri: Uri) -> bool:
        """True if the URI lies within this domain; a telephone number always does."""
        return uri.host in self._ours if isinstance(uri, SipUri) else isinstance(uri, TelUri)

    def aor(self, uri: Uri) -> str | None:
        """The key of whoever the URI names, or None if that is nobody of this domain."""
        if not self.ours(uri):
            return None
        try:
            return number_key(uri, self.domain)
        except SipParseError:
            return None

    def expand(self, number: str) -> str:
        """A bare number as the key it has here; a key stays as it is."""
        return number if "@" in number else f"{number}@{self.domain}"

    def is_service(self, aor: str) -> bool:
        """True for the address of a service number."""
        return aor in self._services

    def may_leave_for(self, key: str) -> bool:
        """True if an operator's pattern allows the foreign target `number@host`."""
        return any(pattern.fullmatch(key) for pattern in self._allowed)

    def analyse(self, uri: Uri) -> Target:
        """What a Request-URI asks for. Raises `Rejected`: 416 for a scheme nobody here speaks."""
        if isinstance(uri, OtherUri):
            raise Rejected(416)
        if isinstance(uri, SipUri) and uri.host not in self._ours:
            return ForeignTarget(uri, f"{uri.decoded_user}@{uri.host}")
        aor = self.aor(uri)
        if aor is None:
            return TheServer()
        if aor in self._services:
            return ServiceNumber(aor)
        if aor[0] in "*#" or aor.startswith("%23"):
            return ServiceCode(number_of(aor))
        return LocalNumber(aor)
