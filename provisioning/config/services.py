"""The sections about numbers: service numbers and their policies, further domains, what channels may ask for."""

import re
from typing import TYPE_CHECKING, Literal

from provisioning.config.section import Section
from provisioning.value_types import Count, Domain, Number, Pattern, Pin, Realm, Seconds

if TYPE_CHECKING:
    from provisioning.config import Config


class ServicePolicy(Section):
    """A service number: dialling it means going live, under these rules. A broadcast keeps them until its end; a
    restart of the server applies them anew."""

    number: Number
    """The number dialled to go live; calls to whoever is live are forwarded to it."""
    domain: Domain | None = None
    """Domain in which the number means this; null is every domain that has no rule of its own for it."""
    broadcasters: tuple[Pattern, ...] = (".*",)
    """Regular expressions of who may go live, each matched against the whole number and the whole
    `number@domain`; anybody else gets 403."""
    viewers: Literal["everyone", "authenticated", "subscribers", "listed"] = "authenticated"
    """Who may watch. `everyone`: strangers too, which opens the relay's bandwidth to them; `authenticated`:
    whoever has an account here or is vouched for by a trusted peer; `subscribers`: accounts here only;
    `listed`: only those the broadcaster's own list names, or who know the PIN."""
    pin: Pin | None = None
    """Digits every viewer is asked for who is not on the broadcaster's list; a PIN of the broadcaster's own
    takes its place."""
    max_seconds: Seconds | None = None
    """Longest broadcast, seconds from its first call; then it ends with a reason. null lets it last."""
    max_viewers: Count = 1_000
    """Viewers of one broadcast; above it 486."""
    second_attempt: Literal["reject", "takeover"] = "reject"
    """A number already live dials the service number again: `reject` answers 486, `takeover` moves the
    broadcast to the new call. Takeover lets a stolen password cut a broadcast off."""

    def lets_broadcast(self, aor: str) -> bool:
        """True if `aor` (`number@domain`) may go live here."""
        return any(
            re.fullmatch(pattern, name) for pattern in self.broadcasters for name in (aor.partition("@")[0], aor)
        )


class DomainConfig(Section):
    """A further domain on this server: subscribers, broadcasts and groups of its own, of any numbers."""

    name: Domain
    """Host name; keys are `number@name`."""
    aliases: tuple[Domain, ...] = ()
    """Other host names that mean it."""
    realm: Realm | None = None
    """Digest realm; null is `name`. Stored password hashes depend on it, so a change is refused while the
    domain has subscribers."""

    @property
    def digest_realm(self) -> str:
        """The realm in force."""
        return self.realm or self.name


class ChannelsConfig(Section):
    """Private broadcasts: lists and PINs that `dialcast channel` sets for a broadcaster's number."""

    max_listed: Count = 1_000
    """Numbers one broadcaster's list may name. The list is read for each viewer."""
    pin_attempts_per_caller: Count = 5
    """Wrong PINs of one caller within `pin_window` before it is refused unasked."""
    pin_attempts_per_channel: Count = 100
    """Wrong PINs for one broadcaster within `pin_window` before others are refused unasked: subscribers of its
    domain together, and, counted apart, everybody else. Low values let mischief keep viewers out, high ones let many
    accounts guess."""
    pin_window: Seconds = 900
    """Seconds for which wrong PINs count."""


def service_policies(config: "Config") -> dict[str, ServicePolicy]:
    """The policy of every service number, by its `number@domain`."""
    general = [policy for policy in config.services if policy.domain is None]
    found = {f"{policy.number}@{domain.name}": policy for policy in general for domain in config.all_domains}
    return found | {f"{policy.number}@{policy.domain}": policy for policy in config.services if policy.domain}
