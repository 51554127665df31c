"""Private broadcasts as the operator sets them up: who is on a broadcaster's list, and the PIN for everybody else."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from protocols.pin import PIN_DIGITS, hash_pin
from protocols.records import Channel
from provisioning.config import Config
from provisioning.store import Store
from provisioning.subscribers import SubscriberError, address_of_record, realms

MADE_PIN_DIGITS = 6


def generate_pin() -> str:
    """A random PIN; guesses are counted, so that a few digits do."""
    return "".join(secrets.choice("0123456789") for _ in range(MADE_PIN_DIGITS))


async def channel_of(store: Store, config: Config, number: str) -> Channel:
    """The settings of a broadcaster's number. Raises SubscriberError when it is no subscriber."""
    return await store.channels.get(await _known(store, config, number))


async def allow(store: Store, config: Config, number: str, viewers: Sequence[str]) -> Channel:
    """Put numbers on the list, which makes the channel private. Raises SubscriberError for who is no subscriber."""
    added = [await _viewer(store, config, viewer) for viewer in viewers]
    most = config.channels.max_listed

    def change(known: Channel) -> Channel:
        listed = known.listed.union(added)
        if len(listed) > most:
            raise SubscriberError(f"{number}: a list holds at most {most} numbers (channels.max_listed)")
        return replace(known, private=True, listed=listed)

    return await _change(store, config, number, change)


async def deny(store: Store, config: Config, number: str, viewers: Sequence[str]) -> Channel:
    """Take numbers off the list. Raises SubscriberError for one that is not on it. Calls that stand go on."""
    gone = [address_of_record(viewer, config) for viewer in viewers]

    def change(known: Channel) -> Channel:
        for viewer, aor in zip(viewers, gone, strict=True):
            if aor not in known.listed:
                raise SubscriberError(f"{viewer} is not on the list of {number}: see `dialcast channel show {number}`")
        return replace(known, listed=known.listed.difference(gone))

    return await _change(store, config, number, change)


async def set_pin(store: Store, config: Config, number: str, pin: str) -> Channel:
    """Give the channel a PIN for whoever is not on the list, which makes it private. Only a salted hash is kept."""
    if not PIN_DIGITS.fullmatch(pin):
        raise SubscriberError("a PIN is 4 to 12 digits")
    kept = hash_pin(pin, secrets.token_bytes(16))
    return await _change(store, config, number, lambda known: replace(known, private=True, pin=kept))


async def make_private(store: Store, config: Config, number: str) -> Channel:
    """Only the list from now on: the PIN is forgotten."""
    return await _change(store, config, number, lambda known: replace(known, private=True, pin=""))


async def make_open(store: Store, config: Config, number: str) -> Channel:
    """Whoever the service number lets may watch; the PIN is forgotten, the list kept for another time."""
    return await _change(store, config, number, lambda known: replace(known, private=False, pin=""))


async def _change(store: Store, config: Config, number: str, change: Callable[[Channel], Channel]) -> Channel:
    return await store.channels.change(await _known(store, config, number), change)


async def _known(store: Store, config: Config, number: str) -> str:
    aor = address_of_record(number, config)
    if await store.credentials.find(aor) is None:
        raise SubscriberError(f"{number} is no subscriber: see `dialcast subscriber list`")
    return aor


async def _viewer(store: Store, config: Config, number: str) -> str:
    """The address of record of a viewer; numbers of other servers are taken as they are, trusted peers bring them."""
    aor = address_of_record(number, config)
    return await _known(store, config, number) if aor.partition("@")[2] in realms(config) else aor
