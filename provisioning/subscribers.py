"""Accounts: made from a number and a password, seeded from the configuration, changed by the operator.

Only H(number:realm:password) is kept (RFC 7616 section 3.4.2), for every digest algorithm, so that `digest_algorithm`
may change later; the realm may not, for it is part of the hash. The hash is as good as the password to an attacker.
"""

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

from protocols.records import Algorithm, Subscriber
from protocols.sip.digest import ha1 as make_ha1
from provisioning.config import Config, sample_password, service_policies
from provisioning.loader import ConfigError
from provisioning.store import Store

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
MAX_PASSWORD_LENGTH = 1_000


class SubscriberError(ValueError):
    """An account cannot be made or changed as asked; the message names the remedy."""


def address_of_record(number: str, config: Config) -> str:
    """The key of a number as an operator writes it: a bare one belongs to the first domain."""
    bare, at, domain = number.partition("@")
    return f"{bare}@{domain.lower() if at else config.domain}"


def realms(config: Config) -> dict[str, str]:
    """The digest realm of each domain."""
    return {domain.name: domain.digest_realm for domain in config.all_domains}


def generate_password() -> str:
    """A random password that can be typed: 96 bits."""
    return secrets.token_urlsafe(12)


def make_subscriber(config: Config, number: str, password: str, display_name: str = "") -> Subscriber:
    """An account of `number`, or `number@domain`, under its domain's realm.

    Raises SubscriberError for a domain not served here and for a password that cannot be one.
    """
    if not password or not password.isprintable() or len(password) > MAX_PASSWORD_LENGTH:
        raise SubscriberError(
            f"{_shown(number, config)}: a password is 1 to {MAX_PASSWORD_LENGTH} printable characters"
        )
    aor = address_of_record(number, config)
    number, _, name = aor.partition("@")
    realm = realms(config).get(name)
    if realm is None:
        raise SubscriberError(f"{name} is no domain here: domains are {', '.join(realms(config))}")
    hashes = tuple((algorithm, make_ha1(algorithm, number, realm, password)) for algorithm in ALGORITHMS)
    return Subscriber(aor, number, realm, hashes, display_name)


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
    if config.exposed and (weak := [_shown(account.aor, config) for account in known if has_sample_password(account)]):
        raise ConfigError(
            f"sip.bind is {config.sip.bind}, but the store holds sample passwords for {_listed(weak)}: "
            f"change them with `dialcast subscriber passwd` or remove them"
        )
    there = {account.aor for account in known}
    new = [
        make_subscriber(config, aor, seed.password.get_secret_value(), seed.display_name)
        for seed in config.subscribers
        if (aor := f"{seed.number}@{seed.domain or config.domain}") not in there
    ]
    # All at once, so that they share a commit: one after the other a thousand would wait for a thousand.
    put = await asyncio.gather(*(store.credentials.put(account, new=True) for account in new))
    return [account.number for account, done in zip(new, put, strict=True) if done]


def check_realm(config: Config, known: Iterable[Subscriber]) -> None:
    """Raise ConfigError when stored password hashes were made for another realm or domain than the configured."""
    wanted = realms(config)
    for account in known:
        domain = account.aor.partition("@")[2]
        realm = wanted.get(domain)
        if realm is None:
            raise ConfigError(
                f"domain is {', '.join(wanted)}, but subscriber {account.number} belongs to {domain}: set "
                f"`domain: {domain}` or list it in `domains`, or remove all its subscribers and add them again"
            )
        if realm != account.realm:
            raise ConfigError(
                f"realm is {realm}, but subscriber {account.aor} has a password hash for {account.realm}: "
                f"set `realm: {account.realm}`, or remove all subscribers of {domain} and add them again"
            )


async def add_subscriber(store: Store, config: Config, number: str, password: str, display_name: str = "") -> None:
    """Add an account. Raises SubscriberError when the number is taken, ConfigError when the realm changed."""
    if address_of_record(number, config) in service_policies(config):
        raise SubscriberError(f"{number} is a service number: choose another, or change services")
    check_realm(config, await store.credentials.all())
    if not await store.credentials.put(make_subscriber(config, number, password, display_name), new=True):
        raise SubscriberError(f"{number} exists already: use `dialcast subscriber passwd {number}` to change it")


async def change_password(store: Store, config: Config, number: str, password: str) -> None:
    """Give an account a new password. Raises SubscriberError when there is none, ConfigError when the realm changed."""
    check_realm(config, await store.credentials.all())
    known = await store.credentials.find(address_of_record(number, config))
    if known is None:
        raise SubscriberError(_unknown(number))
    fresh = make_subscriber(config, number, password)
    await store.credentials.put(replace(known, ha1=fresh.ha1))


async def remove_subscriber(store: Store, number: str) -> None:
    """Delete an account with its registrations, diversions and channel settings. Raises SubscriberError when there is
    none, or when a bare number is that of several domains: one of a former domain can be removed all the same.
    """
    matching = [account.aor for account in await store.credentials.all() if number in (account.number, account.aor)]
    if not matching:
        raise SubscriberError(_unknown(number))
    if len(matching) > 1:
        raise SubscriberError(f"{number} is a number in several domains: name one of {_listed(matching)}")
    await store.credentials.remove(matching[0])


def _shown(aor: str, config: Config) -> str:
    """An address of record as an operator would write it: in the first domain as the bare number."""
    return aor.removesuffix(f"@{config.domain}")


def _unknown(number: str) -> str:
    return f"{number} is no subscriber: see `dialcast subscriber list`"


def _listed(numbers: list[str]) -> str:
    return ", ".join(numbers[:10]) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
