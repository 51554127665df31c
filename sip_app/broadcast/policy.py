"""Who may watch: the policy of the dialled service number, and above it the list and PIN of the broadcaster's own.

A channel is private when its own settings (`dialcast channel`) or its service number say so. Whoever is on the
list gets in; others are asked for a PIN if there is one. Wrong PINs are counted for each caller and each channel;
there those of the channel's own domain are counted apart from everybody else, who cannot shut them out.
"""

import asyncio
import hmac
import time
from collections import deque
from collections.abc import Callable

import structlog

from protocols.pin import PIN_DIGITS, check_pin
from protocols.records import Channel
from provisioning.config import ChannelsConfig, ServicePolicy
from sip_app.bounds import make_room
from sip_app.calls.incoming import Caller, Rejected
from sip_app.metrics import limited
from sip_app.numbers import number_of
from sip_app.ports import Channels, Credentials

MAX_TRACKED = 10_000
"""Callers, and channels, whose wrong PINs are remembered; beyond that the oldest are forgotten."""
CHECKS_AT_ONCE = 2
"""PINs checked at the same time: scrypt takes CPU and 16 MB each."""

log = structlog.get_logger()


class Attempts:
    """Wrong PINs by name, each remembered for `window` seconds."""

    def __init__(self) -> None:
        self._at: dict[str, deque[float]] = {}

    def used_up(self, name: str, most: int, since: float) -> bool:
        """True if `name` had its share after the time `since`."""
        times = self._at.get(name)
        while times and times[0] <= since:
            times.popleft()
        return times is not None and len(times) >= most

    def add(self, name: str, now: float) -> None:
        """One more; taken back by `forgive` if it was right after all."""
        if name not in self._at:
            make_room(self._at, MAX_TRACKED)
        self._at.setdefault(name, deque()).append(now)

    def forgive(self, name: str) -> None:
        """Take the latest back."""
        times = self._at.get(name)
        if times:
            times.pop()
        if not times:
            self._at.pop(name, None)


class Gate:
    """Judges viewers. One for the whole server, since it counts wrong PINs. `clock` gives seconds that only rise."""

    def __init__(
        self,
        config: ChannelsConfig,
        channels: Channels,
        credentials: Credentials,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._channels = channels
        self._credentials = credentials
        self._clock = clock
        self._by_caller, self._by_channel = Attempts(), Attempts()
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def open_to_guests(self, policy: ServicePolicy, channel: str) -> bool:
        """True if strangers may watch the channel: then nobody is asked for credentials."""
        return policy.viewers == "everyone" and not (await self._channels.get(channel)).private

    async def needs_pin(self, policy: ServicePolicy, channel: str, caller: Caller) -> bool:
        """True if `caller` may watch after saying the PIN (`verify_pin`), False if it may at once.

        Raises `Rejected`: 403 if it may not at all, or had too many wrong PINs.
        """
        if policy.viewers == "subscribers" and await self._credentials.find(caller.aor) is None:
            raise Rejected(403, "For Subscribers Only")
        settings = await self._channels.get(channel)
        if caller.authenticated and caller.aor in settings.listed:
            return False
        private = settings.private or policy.viewers == "listed"
        if private and not settings.pin and policy.pin is None:
            log.info("viewer.not_listed", channel=channel, viewer=caller.number)
            raise Rejected(403, f"{number_of(channel)} Is Private")
        if not private and policy.pin is None:
            return False
        self._check_attempts(channel, caller)
        return True

    async def verify_pin(self, policy: ServicePolicy, channel: str, caller: Caller, digits: str) -> bool:
        """True if `digits` are the channel's PIN, or the service number's where the channel has none.

        Raises `Rejected` 403 after too many wrong ones, without looking. Takes tens of milliseconds, in a thread.
        """
        self._check_attempts(channel, caller)
        now, whose = self._clock(), _share(channel, caller)
        self._by_caller.add(caller.key, now)  # before the look, or many calls at once would have more than their share
        self._by_channel.add(whose, now)
        if not await self._right(await self._channels.get(channel), policy, digits):
            log.info("viewer.wrong_pin", channel=channel, viewer=caller.number, peer=caller.client_address.host)
            return False
        self._by_caller.forgive(caller.key)
        self._by_channel.forgive(whose)
        return True

    async def _right(self, settings: Channel, policy: ServicePolicy, digits: str) -> bool:
        if not PIN_DIGITS.fullmatch(digits):
            return False
        if settings.pin:
            async with self._checks:
                return await asyncio.to_thread(check_pin, settings.pin, digits)
        return policy.pin is not None and hmac.compare_digest(policy.pin.get_secret_value(), digits)

    def _check_attempts(self, channel: str, caller: Caller) -> None:
        since = self._clock() - self.config.pin_window
        if self._by_caller.used_up(caller.key, self.config.pin_attempts_per_caller, since):
            limited("channels.pin_attempts_per_caller")
        elif self._by_channel.used_up(_share(channel, caller), self.config.pin_attempts_per_channel, since):
            limited("channels.pin_attempts_per_channel")
        else:
            return
        log.warning("viewer.too_many_pins", channel=channel, viewer=caller.number, peer=caller.client_address.host)
        raise Rejected(403, "Too Many Wrong PINs", [("Retry-After", str(round(self.config.pin_window)))])


def _share(channel: str, caller: Caller) -> str:
    """Under which name a try for a channel counts: one for authenticated callers of its domain, one for all others."""
    known = caller.authenticated and caller.aor.rpartition("@")[2] == channel.rpartition("@")[2]
    return channel if known else f"{channel} strangers"
