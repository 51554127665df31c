"""The kinds of value the configuration knows: addresses, numbers, names, durations, checked where they are read."""

import re
from ipaddress import ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from protocols.net import Address, is_numeric


def is_loopback(host: str) -> bool:
    """True for a loopback literal or `localhost`; any other name counts as reachable from outside."""
    return host == "localhost" or (is_numeric(host) and ip_address(host.strip("[]")).is_loopback)


def parse_host_port(text: str) -> Address:
    """`host:port` or `[ipv6]:port` as an address (the host may be a name). ValueError when it is neither."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (colon and bare and re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535):
        raise ValueError("must be HOST:PORT, an IPv6 host in brackets")
    if ":" in bare and not host.startswith("["):
        raise ValueError("an IPv6 host needs brackets: [::1]:5060")
    return Address(bare, int(port))


def _host_port_text(text: str) -> str:
    parse_host_port(text)
    return text


def _numeric(host: str) -> str:
    bare = host.removeprefix("[").removesuffix("]")
    if not is_numeric(bare):
        raise ValueError("must be a numeric IPv4 or IPv6 address")
    return bare


def _network(text: str) -> str:
    ip_network(text)
    return text


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return text


def _pin(pin: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[0-9]{4,12}", pin.get_secret_value()):
        raise ValueError("must be 4 to 12 digits")
    return pin


def matching(pattern: str, wanted: str) -> AfterValidator:
    """A check of the whole text against `pattern`; `wanted` says in words what is missing."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"must be {wanted}")
        return text

    return AfterValidator(check)


Host = Annotated[str, AfterValidator(_numeric)]
HostPort = Annotated[str, AfterValidator(_host_port_text)]
Network = Annotated[str, AfterValidator(_network)]
Pattern = Annotated[str, AfterValidator(_regex)]
Domain = Annotated[
    str,
    StringConstraints(to_lower=True, max_length=253),
    matching(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "a host name"),
]
Realm = Annotated[
    str,
    StringConstraints(max_length=255),
    matching(r'[^"\\:\x00-\x1f\x7f]+', "text without quotes, colons or backslashes"),
]
Number = Annotated[str, matching(r"[0-9]{1,20}", "1 to 20 digits")]
Pin = Annotated[SecretStr, AfterValidator(_pin)]
Account = Annotated[
    str, matching(r"[0-9]{1,20}(@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)?", "1 to 20 digits, or NUMBER@DOMAIN")
]
ServiceCode = Annotated[str, matching(r"[0-9]{2,3}", "2 or 3 digits")]
DisplayName = Annotated[
    str, StringConstraints(max_length=100), matching(r"[^\x00-\x1f\x7f]*", "text without control characters")
]
Identifier = Annotated[str, matching(r"[A-Za-z0-9._-]{1,64}", "1 to 64 letters, digits, dots, hyphens, underscores")]
MediaFormat = Annotated[
    str, matching(r"[A-Za-z0-9-]+(/[0-9]+)?(;[a-z-]+=[^;\s]+)*", "a format like AMR/8000;octet-align=1")
]
VideoSize = Annotated[str, matching(r"[1-9][0-9]{1,3}x[1-9][0-9]{1,3}", "WIDTHxHEIGHT in pixels, like 352x288")]
Port = Annotated[int, Field(ge=0, le=65535)]
Dscp = Annotated[int, Field(ge=0, le=63)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Delay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
