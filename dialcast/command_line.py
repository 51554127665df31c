"""The commands of `dialcast`. Every command explains itself with --help; --install-completion adds tab completion."""

import asyncio
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from dialcast import version_here
from dialcast.configured import ConfigFile, Overrides, loaded
from dialcast.interrupts import interruptible
from dialcast.lazy_commands import LazyCommands
from provisioning.config import Config
from provisioning.loader import load_config
from provisioning.named_files import EVERYTHING, RELAY

app = typer.Typer(
    cls=LazyCommands,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Live broadcasting that needs nothing but a phone number: dial the service number and be live; "
    "whoever calls your number watches.",
    epilog="Try: dialcast demo. Or: dialcast up, then dialcast phone broadcast --help.",
    pretty_exceptions_enable=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dialcast {version_here()}")
        raise typer.Exit


@app.callback()
def dialcast(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What holds for every command; the help is the app's."""


Supervised = Annotated[str | None, typer.Option(metavar="NAME", hidden=True)]
"""Given by the supervisor: what the part is called in its log."""
Workers = Annotated[int | None, typer.Option(metavar="N", min=1, help="Relay processes; one a core is enough.")]
Bind = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Address to listen on: signalling of a server, media of a relay.")
]
SipPort = Annotated[int | None, typer.Option(metavar="PORT", help="SIP port, UDP and TCP; 0 takes a free one.")]
DataDir = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Directory of database and control socket.")]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"] | None,
    typer.Option(metavar="[debug|info|warning|error]", help="What is logged, and what is worse."),
]
LogFormat = Annotated[
    Literal["console", "json"] | None, typer.Option(metavar="[console|json]", help="How it is logged.")
]


def _given(options: Mapping[str, object | None]) -> Overrides:
    """What of this was given on the command line, by key of the configuration."""
    return {
        key: str(value) if isinstance(value, Path) else value for key, value in options.items() if value is not None
    }


@app.command(short_help="Run an application server and a relay together.")
def up(
    config: ConfigFile = None,
    bind: Bind = None,
    sip_port: SipPort = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Run an application server and a relay together, each restarted if it dies.

    Prints one line when ready:

    ready sip=udp:127.0.0.1:5060,tcp:127.0.0.1:5060 service=8888 metrics=...

    SIGHUP reloads the configuration without dropping a call, SIGTERM stops.
    """
    overrides = _given(
        {
            "sip.bind": bind,
            "relay.bind": bind,
            "sip.port": sip_port,
            "data_dir": data_dir,
            "relay.workers": workers,
            "log.level": log_level,
            "log.format": log_format,
        }
    )
    _supervise("up", config, overrides, loaded(config, overrides, EVERYTHING), EVERYTHING)


@app.command("as", short_help="Run an application server alone.")
def application_server(
    config: ConfigFile = None,
    bind: Bind = None,
    sip_port: SipPort = None,
    data_dir: DataDir = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    supervised: Supervised = None,
) -> None:
    """Run an application server alone; control.connect names its relay."""
    given = {
        "sip.bind": bind,
        "sip.port": sip_port,
        "data_dir": data_dir,
        "log.level": log_level,
        "log.format": log_format,
    }
    overrides = _given(given)
    _start("as", config, overrides, loaded(config, overrides, EVERYTHING), EVERYTHING, supervised)


@app.command(short_help="Run a media relay alone.")
def relay(
    config: ConfigFile = None,
    bind: Bind = None,
    workers: Workers = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    supervised: Supervised = None,
    standby: Annotated[bool, typer.Option("--standby", hidden=True)] = False,
) -> None:
    """Run a media relay alone; prints the address application servers dial, with --workers those of all."""
    if standby:
        from dialcast.standby import wait_for_turn

        supervised = wait_for_turn()
    overrides = _given({"relay.bind": bind, "relay.workers": workers, "log.level": log_level, "log.format": log_format})
    settings = loaded(config, overrides, RELAY)
    if settings.relay.workers > 1 and supervised is None:
        _supervise("relay", config, overrides, settings, RELAY)
    _start("relay", config, overrides, settings, RELAY, supervised)


def _supervise(
    command: str, config: Path | None, overrides: Overrides, settings: Config, needed: tuple[str, ...]
) -> NoReturn:
    """Run the parts as processes of their own."""
    with interruptible():
        from dialcast.logs import configure
        from dialcast.supervisor import supervise

    configure(settings.log, command)
    environment = {f"DIALCAST_{key.replace('.', '__').upper()}": json.dumps(value) for key, value in overrides.items()}
    if config is not None:
        environment["DIALCAST_CONFIG"] = str(config)
    source = partial(load_config, config, overrides=overrides, needed=needed)
    raise typer.Exit(asyncio.run(supervise(environment, settings, source, alone=command == "relay")))


def _start(
    part: str,
    config: Path | None,
    overrides: Overrides,
    settings: Config,
    needed: tuple[str, ...],
    supervised: str | None,
) -> NoReturn:
    """Run one part in this process."""
    with interruptible():
        from dialcast.compose import start

    source = partial(load_config, config, overrides=overrides, needed=needed)
    raise typer.Exit(start(part, settings, source, supervised=supervised is not None, name=supervised or part))


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
