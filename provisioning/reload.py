"""A configuration read anew (SIGHUP, `dialcast reload`): which of its changes take effect at once, which at a restart.

A key takes effect at once only if `LIVE` names it: whoever adds a setting adds it here together with the
`reconfigure(config)` of the part that reads it. Everything else keeps the value the process was started with.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from pydantic import ValidationError

from provisioning.config import Config, Section
from provisioning.loader import ConfigError

LIVE = (
    "domain_aliases",
    "cross_domain_calls",
    "services",
    "subscribers",
    "sip.trusted_peers",
    "sip.digest_algorithm",
    "sip.min_expires",
    "sip.max_expires",
    "sip.default_expires",
    "sip.max_bindings",
    "sip.max_message_bytes",
    "sip.max_header_bytes",
    "sip.max_headers",
    "sip.max_connections",
    "sip.outgoing_share",
    "sip.max_connections_per_address",
    "sip.connection_idle_timeout",
    "sip.connection_first_message_timeout",
    "sip.message_timeout",
    "sip.max_unsent_bytes",
    "sip.connect_timeout",
    "sip.flow_timer",
    "sip.path",
    "sip.requests_per_second",
    "sip.unauthenticated_per_second",
    "sip.max_branch_dialogs",
    "sip.max_challenges",
    "sip.allow_targets",
    "tls.handshake_timeout",
    "websocket.origins",
    "websocket.upgrade_timeout",
    "websocket.ping_interval",
    "websocket.max_fragments",
    "service.*",
    "channels.*",
    "announcements.*",
    "events.*",
    "messages.*",
    "media.*",
    "relay.*",
    "log.level",
    "operations.*",
    "diversion.*",
    "security.*",
)
"""Keys, and sections with `*`, that change in a running process."""
FIXED = (
    "service.forwarding_code",
    "service.ring_timeout",
    "events.presence_watchers",
    "relay.control_host",
    "relay.control_port",
    "relay.bind",
    "relay.advertised_host",
    "relay.port_min",
    "relay.port_max",
    "relay.workers",
    "relay.dscp_audio",
    "relay.dscp_video",
    "relay.rtp_buffer_bytes",
    "operations.bind",
    "operations.as_port",
    "operations.relay_port",
    "operations.call_file",
)
"""What `LIVE` names by its section and yet takes effect at a restart only."""
ELSEWHERE = ("terminal.*",)
"""Keys no server reads."""
S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Reload:
    """The configuration in force from now on, and what its file says beyond it."""

    config: Config
    changed: tuple[str, ...]
    """Keys that took effect."""
    restart: tuple[str, ...]
    """Keys that differ from what the process runs with, until it is restarted."""


def is_live(key: str) -> bool:
    """True for a key, as `sip.trusted_peers`, that changes without a restart."""
    return _matches(key, LIVE) and not _matches(key, FIXED)


def reloaded(running: Config, wanted: Config) -> Reload:
    """What a process that runs on `running` makes of `wanted`. Raises ConfigError when the mixture is impossible."""
    differing = [key for key in _differences(running, wanted) if not _matches(key, ELSEWHERE)]
    changed = tuple(key for key in differing if is_live(key))
    restart = tuple(key for key in differing if not is_live(key))
    try:
        config = _mixed(running, wanted, "")
    except ValidationError as error:
        reasons = "; ".join(str(detail.get("ctx", {}).get("error", detail["msg"])) for detail in error.errors())
        raise ConfigError(
            f"not possible before a restart ({', '.join(restart)} cannot change now): {reasons}"
        ) from None
    return Reload(config, changed, restart)


def _mixed(running: S, wanted: S, prefix: str) -> S:
    """Live keys of `wanted`, all others of `running`, checked as one."""
    values = {}
    for name in type(running).model_fields:
        before, after = getattr(running, name), getattr(wanted, name)
        if isinstance(before, Section):
            values[name] = _mixed(before, after, f"{prefix}{name}.")
        else:
            values[name] = after if is_live(prefix + name) else before
    return type(running).model_validate(values)


def _differences(running: Section, wanted: Section, prefix: str = "") -> Iterator[str]:
    for name in type(running).model_fields:
        before, after = getattr(running, name), getattr(wanted, name)
        if isinstance(before, Section) and isinstance(after, Section):
            yield from _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield prefix + name


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)
