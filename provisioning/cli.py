"""The operator's commands `dialcast config ...` and `dialcast subscriber ...`.

What they share with others is in `commands`.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from provisioning.commands import (
    ConfigFile,
    DataDir,
    NumberArgument,
    check_value,
    load,
    one_line_errors,
    read_secret,
    with_store,
)
from provisioning.loader import load_config
from provisioning.named_files import EVERYTHING
from provisioning.reference import sample_yaml
from provisioning.subscribers import (
    add_subscriber,
    address_of_record,
    change_password,
    generate_password,
    has_sample_password,
    remove_subscriber,
)
from provisioning.value_types import Account, DisplayName

config_app = typer.Typer(help="Look at and check the configuration.", no_args_is_help=True)
subscriber_app = typer.Typer(help="Manage the numbers that may register.", no_args_is_help=True)

FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Generate = Annotated[bool, typer.Option("--generate", help="Make a random password and print it once.")]


@config_app.command("check", short_help="Name every mistake in a configuration file.")
def check(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", envvar="DIALCAST_CONFIG", help="Configuration file; none: defaults."),
    ] = None,
) -> None:
    """Name every mistake in a configuration file (with the environment on top) by line and key.

    The files, the data directory and the database driver it names are looked at, too.
    """
    with one_line_errors():
        config = load_config(file, needed=EVERYTHING)
    names = f"domain{'s' * bool(config.domains)} {', '.join(domain.name for domain in config.all_domains)}"
    typer.echo(f"{file or 'defaults'}: ok, {names}, {len(config.subscribers)} subscribers")


@config_app.command("defaults", short_help="Print all keys with their defaults and purpose, as YAML.")
def defaults() -> None:
    """Print all keys with their defaults and what they are for, as a file to start from."""
    typer.echo(sample_yaml(), nl=False)


@subscriber_app.command("add")
def add(
    number: NumberArgument,
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="Display name.")] = "",
    password_stdin: FromStdin = False,
    generate: Generate = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Add a number; asks for its password unless told otherwise."""
    with one_line_errors():
        config = load(config_file, data_dir)
        check_value(Account, number, "NUMBER")
        check_value(DisplayName, name, "--name")
        password = read_secret("password", password_stdin, generate_password if generate else None)
        with_store(config, lambda store: add_subscriber(store, config, number, password, name), make=True)
    _done(f"{number} added", password if generate else None)


@subscriber_app.command("list")
def listing(config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """List the numbers; never their passwords."""
    with one_line_errors():
        known = with_store(load(config_file, data_dir), lambda store: store.credentials.all())
    table = Table("number", "name", "address of record", "password", box=None)
    for account in known:
        table.add_row(
            account.number, account.display_name, account.aor, "sample" if has_sample_password(account) else "own"
        )
    Console(highlight=False, markup=False).print(table if known else "no subscribers")


@subscriber_app.command("remove", short_help="Remove a number and all that is kept of it.")
def remove(number: NumberArgument, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Remove a number with its registrations, diversions and channel settings."""
    with one_line_errors():
        config = load(config_file, data_dir)
        with_store(config, lambda store: remove_subscriber(store, number))
    _done(f"{number} removed", None)
    seeded = {f"{seed.number}@{seed.domain or config.domain}" for seed in config.subscribers}
    if address_of_record(number, config) in seeded:
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
    with one_line_errors():
        config = load(config_file, data_dir)
        password = read_secret("password", password_stdin, generate_password if generate else None)
        with_store(config, lambda store: change_password(store, config, number, password))
    _done(f"password of {number} changed", password if generate else None)


def _done(text: str, password: str | None) -> None:
    """Say so; a password that was made is shown this once."""
    typer.echo(text if password is None else f"{text}, password {password}")
