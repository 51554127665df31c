"""Accounts: made from a number and a password, seeded from the configuration, changed by the operator.

Only H(number:realm:password) is kept (RFC 7616 section 3.4.2), for every digest algorithm, so that `digest_algorithm`
may change later; the realm may not, for it is part of the hash. The hash is as good as the password to an attacker.
"""

import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

from protocols.records import Algorithm, Subscriber
from protocols.sip.digest import ha1 as make_ha1
from provisioning.config import Config, sample_password
from provisioning.loader import ConfigError
from provisioning.store import Store

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
MAX_PASSWORD_LENGTH = 1_000


class SubscriberError(ValueError):
    """An account cannot be made or changed as asked; the message names the remedy."""


def address_of_record(number: str, domain: str) -> str:
    """The key of a number: `number@domain`."""
    return f"{number}@{domain}"


def generate_password() -> str:
    """A random password that can be typed: 96 bits."""
    return secrets.token_urlsafe(12)


def make_subscriber(config: Config, number: str, password: str, display_name: str = "") -> Subscriber:
    """An account under the configured domain and realm. Raises SubscriberError for a password that cannot be one."""
    if not password or not password.isprintable() or len(password) > MAX_PASSWORD_LENGTH:
        raise SubscriberError(f"{number}: a password is 1 to {MAX_PASSWORD_LENGTH} printable characters")
    realm = config.digest_realm
    hashes = tuple((algorithm, make_ha1(algorithm, number, realm, password)) for algorithm in ALGORITHMS)
    return Subscriber(address_of_record(number, config.domain), number, realm, hashes, display_name)


def has_sample_password(subscriber: Subscriber) -> bool:
    """True when the account's password is the well-known sample one, however it got there."""
    expected = make_ha1("MD5", subscriber.number, subscriber.realm, sample_password(subscriber.number))
    return subscriber.ha1_for("MD5") == expected


async def provision(store: Store, config: Config) -> list[str]:
    """Make the store fit for serving this configuration; the numbers added from `subscribers`.

    Raises ConfigError when the realm changed under existing subscribers, or when someone off this host could reach an
    account with a sample password.
    """
    known = await store.credentials.all()
    check_realm(config, known)
    if config.exposed and (weak := [account.number for account in known if has_sample_password(account)]):
        raise ConfigError(
            f"sip.bind is {config.sip.bind}, but the store holds sample passwords for {_listed(weak)}: "
            f"change them with `dialcast subscriber passwd` or remove them"
        )
    missing = {seed.number: seed for seed in config.subscribers}.keys() - {account.number for account in known}
    added = []
    for seed in config.subscribers:
        if seed.number in missing:
            account = make_subscriber(config, seed.number, seed.password.get_secret_value(), seed.display_name)
            if await store.credentials.put(account, new=True):
                added.append(seed.number)
    return added


def check_realm(config: Config, known: Iterable[Subscriber]) -> None:
    """Raise ConfigError when stored password hashes were made for another realm or domain than the configured."""
    for account in known:
        domain = account.aor.partition("@")[2]
        if account.realm != config.digest_realm:
            raise ConfigError(
                f"realm is {config.digest_realm}, but subscriber {account.number} has a password hash for "
                f"{account.realm}: set `realm: {account.realm}`, or remove all subscribers and add them again"
            )
        if domain != config.domain:
            raise ConfigError(
                f"domain is {config.domain}, but subscriber {account.number} belongs to {domain}: "
                f"set `domain: {domain}`, or remove all subscribers and add them again"
            )


async def add_subscriber(store: Store, config: Config, number: str, password: str, display_name: str = "") -> None:
    """Add an account. Raises SubscriberError when the number is taken, ConfigError when the realm changed."""
    if number in config.service.numbers:
        raise SubscriberError(f"{number} is a service number: choose another, or change service.numbers")
    check_realm(config, await store.credentials.all())
    if not await store.credentials.put(make_subscriber(config, number, password, display_name), new=True):
        raise SubscriberError(f"{number} exists already: use `dialcast subscriber passwd {number}` to change it")


async def change_password(store: Store, config: Config, number: str, password: str) -> None:
    """Give an account a new password. Raises SubscriberError when there is none, ConfigError when the realm changed."""
    check_realm(config, await store.credentials.all())
    known = await store.credentials.find(address_of_record(number, config.domain))
    if known is None:
        raise SubscriberError(_unknown(number))
    fresh = make_subscriber(config, number, password)
    await store.credentials.put(replace(known, ha1=fresh.ha1))


async def remove_subscriber(store: Store, number: str) -> None:
    """Delete an account with its registrations and diversions. Raises SubscriberError when there is none.

    The number is looked up under any domain, so that the accounts of a former domain can be removed.
    """
    matching = [account for account in await store.credentials.all() if account.number == number]
    if not matching:
        raise SubscriberError(_unknown(number))
    for account in matching:
        await store.credentials.remove(account.aor)


def _unknown(number: str) -> str:
    return f"{number} is no subscriber: see `dialcast subscriber list`"


def _listed(numbers: list[str]) -> str:
    return ", ".join(numbers[:10]) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
