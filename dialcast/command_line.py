"""The commands of `dialcast`. Every command explains itself with --help; --install-completion adds tab completion."""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from dialcast.interrupts import interruptible
from dialcast.live import blocks, live_app, reload
from provisioning.calls_cli import calls
from provisioning.channel_cli import channel_app
from provisioning.cli import config_app, subscriber_app
from provisioning.config import Config
from provisioning.loader import ConfigError, load_config

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Live broadcasting that needs nothing but a phone number: dial the service number and be live; "
    "whoever calls your number watches.",
    epilog="Try: dialcast demo. Or: dialcast up, then dialcast phone broadcast --help.",
    pretty_exceptions_enable=False,
)
app.add_typer(config_app, name="config")
app.add_typer(subscriber_app, name="subscriber")
app.add_typer(channel_app, name="channel", short_help="Private broadcasts: who may watch a number.")
app.add_typer(live_app, name="live")
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="YAML file; without one: loopback, subscribers 1001-1009.",
        envvar="DIALCAST_CONFIG",
        dir_okay=False,
    ),
]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
Level = Literal["debug", "info", "warning", "error"]
Overrides = dict[str, object]
NEEDS_PHONE = "needs the softphone's libraries: pip install 'dialcast[phone]' (there is no {})"


def _mount_phone() -> None:
    """The softphone, where its libraries are installed: a server needs no camera and no codecs."""
    try:
        from terminal_client.cli import phone
    except ModuleNotFoundError as missing:
        lacking = NEEDS_PHONE.format(missing.name)

        @app.command("phone", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
        def phone_missing() -> None:
            """The softphone; its libraries are not installed here."""
            typer.echo(f"dialcast phone {lacking}", err=True)
            raise typer.Exit(1)

        return

    @phone.callback()
    def defaults(context: typer.Context, config: ConfigFile = None) -> None:
        context.obj = _load(config).terminal

    app.add_typer(phone, name="phone", short_help="The softphone: go live, watch, answer, dial codes.")


def _load(path: Path | None, overrides: Overrides | None = None) -> Config:
    try:
        return load_config(path, overrides=overrides)
    except ConfigError as error:
        typer.echo("\n".join(error.problems), err=True)
        raise typer.Exit(2) from None


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
    loaded = _load(config, overrides)
    configure(loaded.log, "up")
    environment = {f"DIALCAST_{key.replace('.', '__').upper()}": json.dumps(value) for key, value in overrides.items()}
    if config is not None:
        environment["DIALCAST_CONFIG"] = str(config)
    source = partial(load_config, config, overrides=overrides)
    raise typer.Exit(asyncio.run(supervise(environment, loaded, source)))


@app.command("as", short_help="Run an application server alone.")
def application_server(config: ConfigFile = None, supervised: Supervised = False) -> None:
    """Run an application server alone; control.connect names its relay."""
    with interruptible():
        from dialcast.compose import start

    raise typer.Exit(start("as", _load(config), partial(load_config, config), supervised=supervised))


@app.command(short_help="Run a media relay alone.")
def relay(config: ConfigFile = None, supervised: Supervised = False) -> None:
    """Run a media relay alone; prints the address application servers dial."""
    with interruptible():
        from dialcast.compose import start

    raise typer.Exit(start("relay", _load(config), partial(load_config, config), supervised=supervised))


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


app.command("reload", short_help="Have the server here read its configuration again.")(reload)
app.command("blocks", short_help="List the blocked addresses and accounts; lift a block.")(blocks)
app.command("calls", short_help="List who broadcast and who watched, when, how long.")(calls)
_mount_phone()
