"""The commands of `dialcast`. Every command explains itself with --help; --install-completion adds tab completion."""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from dialcast.configured import ConfigFile, loaded
from dialcast.interrupts import interruptible
from dialcast.lazy_commands import LazyCommands
from provisioning.loader import load_config

app = typer.Typer(
    cls=LazyCommands,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Live broadcasting that needs nothing but a phone number: dial the service number and be live; "
    "whoever calls your number watches.",
    epilog="Try: dialcast demo. Or: dialcast up, then dialcast phone broadcast --help.",
    pretty_exceptions_enable=False,
)
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
Level = Literal["debug", "info", "warning", "error"]


@app.command(short_help="Run an application server and a relay together.")
def up(
    config: ConfigFile = None,
    bind: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on, for signalling and media.")
    ] = None,
    sip_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="SIP port, UDP and TCP; 0 takes a free one.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Directory of database and control socket.")
    ] = None,
    log_level: Annotated[Level | None, typer.Option(help="What is logged, and what is worse.")] = None,
    log_format: Annotated[Literal["console", "json"] | None, typer.Option(help="How it is logged.")] = None,
) -> None:
    """Run an application server and a relay together, each restarted if it dies.

    Prints one line when ready:

    ready sip=udp:127.0.0.1:5060,tcp:127.0.0.1:5060 service=8888 metrics=...

    SIGHUP reloads the configuration without dropping a call, SIGTERM stops.
    """
    with interruptible():
        from dialcast.logs import configure
        from dialcast.supervisor import supervise

    wanted: dict[str, object | None] = {
        "sip.bind": bind,
        "relay.bind": bind,
        "sip.port": sip_port,
        "data_dir": str(data_dir) if data_dir else None,
        "log.level": log_level,
        "log.format": log_format,
    }
    overrides = {key: value for key, value in wanted.items() if value is not None}
    settings = loaded(config, overrides)
    configure(settings.log, "up")
    environment = {f"DIALCAST_{key.replace('.', '__').upper()}": json.dumps(value) for key, value in overrides.items()}
    if config is not None:
        environment["DIALCAST_CONFIG"] = str(config)
    source = partial(load_config, config, overrides=overrides)
    raise typer.Exit(asyncio.run(supervise(environment, settings, source)))


@app.command("as", short_help="Run an application server alone.")
def application_server(config: ConfigFile = None, supervised: Supervised = False) -> None:
    """Run an application server alone; control.connect names its relay."""
    with interruptible():
        from dialcast.compose import start

    raise typer.Exit(start("as", loaded(config), partial(load_config, config), supervised=supervised))


@app.command(short_help="Run a media relay alone.")
def relay(config: ConfigFile = None, supervised: Supervised = False) -> None:
    """Run a media relay alone; prints the address application servers dial."""
    with interruptible():
        from dialcast.compose import start

    raise typer.Exit(start("relay", loaded(config), partial(load_config, config), supervised=supervised))


@app.command(short_help="Show a whole broadcast: three viewers, measured and judged.")
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where report, recordings and snapshots go.")] = Path(
        "demo-out"
    ),
) -> None:
    """Show a whole broadcast: real processes, real footage and voices, three viewers; measured and judged."""
    try:
        with interruptible():
            from rich.console import Console

            from dialcast.demo.actor import DemoError
            from dialcast.demo.show import show
            from dialcast.footage import FootageError
    except ModuleNotFoundError as missing:
        from dialcast.phone_command import NEEDS_PHONE

        typer.echo(f"dialcast demo {NEEDS_PHONE.format(missing.name)}", err=True)
        raise typer.Exit(1) from None

    # Wide enough for a line of the ladder where there is no terminal to ask.
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    try:
        raise typer.Exit(asyncio.run(show(out, console)))
    except (DemoError, FootageError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"{error.filename or out}: {error.strerror}: choose a folder you can write with --out", err=True)
        raise typer.Exit(1) from None
