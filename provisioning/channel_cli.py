"""The operator's commands `dialcast channel ...`: who may watch a broadcaster's number."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from protocols.records import Channel
from provisioning.channels import allow, channel_of, deny, generate_pin, make_open, make_private, set_pin
from provisioning.commands import (
    ConfigFile,
    DataDir,
    NumberArgument,
    check_value,
    complete_number,
    load,
    one_line_errors,
    read_secret,
    with_store,
)
from provisioning.config import Config
from provisioning.store import Store
from provisioning.value_types import Account

channel_app = typer.Typer(
    help="Private broadcasts: who may watch a number, by list and by PIN. Takes effect with the next call.",
    no_args_is_help=True,
)
Viewers = Annotated[
    list[str],
    typer.Argument(metavar="VIEWER", help="Numbers, or NUMBER@DOMAIN.", autocompletion=complete_number),
]


@channel_app.command("show")
def show(number: NumberArgument, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Show who may watch a number; never its PIN."""
    _do(number, config_file, data_dir, lambda store, config: channel_of(store, config, number))


@channel_app.command("allow")
def allow_viewers(
    number: NumberArgument, viewers: Viewers, config_file: ConfigFile = None, data_dir: DataDir = None
) -> None:
    """Put viewers on a number's list; makes its broadcasts private."""
    for viewer in viewers:
        _check(viewer, "VIEWER")
    _do(number, config_file, data_dir, lambda store, config: allow(store, config, number, viewers))


@channel_app.command("deny")
def deny_viewers(
    number: NumberArgument, viewers: Viewers, config_file: ConfigFile = None, data_dir: DataDir = None
) -> None:
    """Take viewers off a number's list; who watches now may stay."""
    _do(number, config_file, data_dir, lambda store, config: deny(store, config, number, viewers))


@channel_app.command(
    "pin",
    short_help="Give a number a PIN that lets in who is not on the list.",
    context_settings={"allow_extra_args": True},
)
def pin(
    context: typer.Context,
    number: NumberArgument,
    pin_stdin: Annotated[bool, typer.Option("--pin-stdin", help="Read the PIN from standard input.")] = False,
    generate: Annotated[bool, typer.Option("--generate", help="Make a random PIN and print it once.")] = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Give a number a PIN (4 to 12 digits) that lets in who is not on the list; makes its broadcasts private."""
    if context.args:  # every process of the host could read it there
        raise typer.BadParameter(
            "a PIN is no argument: leave it out to be asked for it, or use --pin-stdin or --generate"
        )
    with one_line_errors():
        digits = read_secret("PIN", pin_stdin, generate_pin if generate else None)
    _do(number, config_file, data_dir, lambda store, config: set_pin(store, config, number, digits))
    if generate:
        typer.echo(f"PIN {digits}")


@channel_app.command("private")
def private(number: NumberArgument, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Let only the list of a number watch; a PIN is forgotten."""
    _do(number, config_file, data_dir, lambda store, config: make_private(store, config, number))


@channel_app.command("open", short_help="Let everybody watch a number again; a PIN is forgotten.")
def open_channel(number: NumberArgument, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Let everybody watch a number again whom its service number lets; the list is kept, a PIN forgotten."""
    _do(number, config_file, data_dir, lambda store, config: make_open(store, config, number))


def _do(
    number: str,
    config_file: Path | None,
    data_dir: Path | None,
    work: Callable[[Store, Config], Awaitable[Channel]],
) -> None:
    """Do it, and show what is in force then."""
    _check(number, "NUMBER")
    with one_line_errors():
        config = load(config_file, data_dir)
        channel = with_store(config, lambda store: work(store, config))
    typer.echo(_shown(number, channel, config))


def _check(number: str, what: str) -> None:
    with one_line_errors():
        check_value(Account, number, what)


def _shown(number: str, channel: Channel, config: Config) -> str:
    listed = ", ".join(sorted(aor.removesuffix(f"@{config.domain}") for aor in channel.listed)) or "nobody"
    if not channel.private:
        kept = f"; the list, not in use: {listed}" if channel.listed else ""
        return f"{number} is open{kept}"
    return f"{number} is private; on the list: {listed}; others {'are asked for the PIN' if channel.pin else 'may not'}"
