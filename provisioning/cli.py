"""The operator's commands `dialcast config ...` and `dialcast subscriber ...`.

Exit codes: 0 done, 1 refused by what is stored, 2 wrong usage or configuration. Mistakes take one clear line each on
stderr. Passwords are read from a prompt or stdin, never from arguments, which any process on the host can see.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from provisioning.config import Config
from provisioning.database import StoreError
from provisioning.loader import ConfigError, load_config
from provisioning.reference import sample_yaml
from provisioning.store import Store
from provisioning.subscribers import (
    SubscriberError,
    add_subscriber,
    change_password,
    generate_password,
    has_sample_password,
    remove_subscriber,
)
from provisioning.value_types import DisplayName, Number

T = TypeVar("T")
config_app = typer.Typer(help="Look at and check the configuration.", no_args_is_help=True)
subscriber_app = typer.Typer(help="Manage the numbers that may register.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="DIALCAST_CONFIG", help="Configuration file.")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Data directory; wins over the configuration.")]
NumberArgument = Annotated[str, typer.Argument(metavar="NUMBER", help="Phone number, digits only.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Generate = Annotated[bool, typer.Option("--generate", help="Make a random password and print it once.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Mistakes as lines on stderr and an exit code instead of a traceback."""
    try:
        yield
    except (ConfigError, SubscriberError, StoreError) as error:
        for line in str(error).splitlines():
            typer.echo(f"dialcast: {line}", err=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None


@config_app.command("check")
def check(
    file: Annotated[
        Path | None, typer.Argument(envvar="DIALCAST_CONFIG", help="Configuration file; none: defaults.")
    ] = None,
) -> None:
    """Name every mistake in a configuration file (with the environment on top) by line and key."""
    with _one_line_errors():
        config = load_config(file)
    typer.echo(f"{file or 'defaults'}: ok, domain {config.domain}, {len(config.subscribers)} subscribers")


@config_app.command("defaults")
def defaults() -> None:
    """Print all keys with their defaults and what they are for, as a file to start from."""
    typer.echo(sample_yaml(), nl=False)


@subscriber_app.command("add")
def add(
    number: NumberArgument,
    name: Annotated[str, typer.Option("--name", help="Display name.")] = "",
    password_stdin: FromStdin = False,
    generate: Generate = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Add a number; asks for its password unless told otherwise."""
    with _one_line_errors():
        config = _load(config_file, data_dir)
        _check(Number, number, "NUMBER")
        _check(DisplayName, name, "--name")
        password = _password(password_stdin, generate)
        _with_store(config, lambda store: add_subscriber(store, config, number, password, name))
    _done(f"{number} added", password if generate else None)


@subscriber_app.command("list")
def listing(config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """List the numbers; never their passwords."""
    with _one_line_errors():
        known = _with_store(_load(config_file, data_dir), lambda store: store.credentials.all())
    table = Table("number", "name", "address of record", "password", box=None)
    for account in known:
        table.add_row(
            account.number, account.display_name, account.aor, "sample" if has_sample_password(account) else "own"
        )
    Console(highlight=False, markup=False).print(table if known else "no subscribers")


@subscriber_app.command("remove")
def remove(number: NumberArgument, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Remove a number with its registrations and diversions."""
    with _one_line_errors():
        config = _load(config_file, data_dir)
        _with_store(config, lambda store: remove_subscriber(store, number))
    _done(f"{number} removed", None)
    if number in {seed.number for seed in config.subscribers}:
        typer.echo(f"note: the configuration's `subscribers` has {number}: the next start adds it again", err=True)


@subscriber_app.command("passwd")
def passwd(
    number: NumberArgument,
    password_stdin: FromStdin = False,
    generate: Generate = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Give a number a new password; asks for it unless told otherwise."""
    with _one_line_errors():
        config = _load(config_file, data_dir)
        password = _password(password_stdin, generate)
        _with_store(config, lambda store: change_password(store, config, number, password))
    _done(f"password of {number} changed", password if generate else None)


def _load(file: Path | None, data_dir: Path | None) -> Config:
    return load_config(file, overrides={"data_dir": str(data_dir)} if data_dir else None)


def _with_store(config: Config, work: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        store = await Store.open(config)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def _check(kind: Any, value: str, what: str) -> None:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        detail = error.errors()[0]
        raise SubscriberError(f"{what}: {detail.get('ctx', {}).get('error') or detail['msg']}") from None


def _password(from_stdin: bool, generate: bool) -> str:
    """The password as the options say; typer's Abort when the user leaves the prompt."""
    if from_stdin and generate:
        raise SubscriberError("--password-stdin and --generate exclude each other")
    if generate:
        return generate_password()
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise SubscriberError("no terminal to ask for a password: use --password-stdin or --generate")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


def _done(text: str, password: str | None) -> None:
    typer.echo(text if password is None else f"{text}, password {password}")
