"""The command line of the phone, `dialcast phone ...`: broadcast, watch, answer, codes.

Exit codes: 0 ended normally, 1 wrong usage or settings, 2 registration refused, 3 call refused or unreachable, 4 media
failed, 5 lost, 130 interrupted before the call was answered.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from provisioning.config import Config, TerminalConfig
from terminal_client.cli_options import (
    USAGE,
    AskPin,
    Bitrate,
    Camera,
    Duration,
    Fps,
    Keys,
    LogFormat,
    LogLevel,
    Microphone,
    Number,
    Password,
    PasswordFile,
    ReceiveWhen,
    Record,
    Report,
    SendWhen,
    Server,
    Size,
    Snapshot,
    Speaker,
    Stamp,
    TransportName,
    keys_of,
    line_of,
    media_of,
    pin_of,
    usage,
)
from terminal_client.codes import CODES
from terminal_client.journal import Journal, Level
from terminal_client.media import MediaSession
from terminal_client.outcome import INTERRUPTED, MEDIA_FAILED, Outcome, PhoneOptions
from terminal_client.phone import Phone
from terminal_client.rehearsal import rehearsed, unwritable
from terminal_client.screen import TerminalScreen
from terminal_client.signalling import open_line
from terminal_client.sip_text import printable
from terminal_client.streams import SourceError

USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""Click's UsageError, wherever this version of typer keeps it."""


class PhoneGroup(TyperGroup):
    """A mistake on the command line exits with 1 here: 2 tells a script that the registration was refused."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own Context is Click's
        """Run the command."""
        try:
            return super().invoke(ctx)
        except USAGE_ERROR as error:
            vars(error)["exit_code"] = USAGE
            raise


phone = typer.Typer(
    cls=PhoneGroup,
    help="The softphone: go live by dialling the service number, watch by calling a number.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Keys while connected: s send, r receive, c next camera, m mute, p snapshot, t text, q hang up; 0-9 * # are "
    "sent to the far end. Without a terminal the same letters and digits as lines on stdin. "
    "Example: dialcast phone broadcast --number 1001 --send now",
)
codes = typer.Typer(help="Service codes: forwarding of your own number.", no_args_is_help=True, rich_markup_mode=None)
phone.add_typer(codes, name="codes")


@phone.command(epilog="Example: dialcast phone broadcast --number 1001 --camera 0 --camera clip.mp4 --send now")
def broadcast(
    context: typer.Context,
    server: Server = None,
    transport: TransportName = None,
    number: Number = None,
    password: Password = None,
    password_file: PasswordFile = None,
    service: Annotated[str | None, typer.Option(metavar="NUMBER", help="Service number to dial.")] = None,
    camera: Camera = None,
    microphone: Microphone = None,
    size: Size = None,
    fps: Fps = None,
    bitrate: Bitrate = None,
    stamp: Stamp = False,
    loop: Annotated[bool, typer.Option(help="Start files again at their end, or hang up there.")] = True,
    send: SendWhen = None,
    redial: Annotated[bool, typer.Option(help="Dial again when the call is lost.")] = True,
    record: Record = None,
    snapshot: Snapshot = None,
    report: Report = None,
    duration: Duration = None,
    log_level: LogLevel = None,
    log_format: LogFormat = "console",
) -> None:
    """Go live: dial the service number. Whoever calls your number from then on watches you."""
    defaults = _defaults(context)
    options = PhoneOptions(
        line_of(defaults, server, transport, number, password, password_file, log_level),
        media_of(defaults, camera, microphone, "none", size, fps, bitrate, stamp, loop, record, snapshot),
        service=service or defaults.service,
        send=send or defaults.send,
        duration=duration,
        redial=redial,
        report=report,
    )
    _run(options, _journal(log_format, log_level), lambda it: it.broadcast(), sends=True)


@phone.command(epilog="Example: dialcast phone watch 1001 --number 1002 --receive now --record show.mp4")
def watch(
    context: typer.Context,
    channel: Annotated[str, typer.Argument(metavar="NUMBER", help="The broadcaster's number.")],
    server: Server = None,
    transport: TransportName = None,
    number: Number = None,
    password: Password = None,
    password_file: PasswordFile = None,
    speaker: Speaker = None,
    receive: ReceiveWhen = None,
    keys: Keys = None,
    pin: AskPin = False,
    record: Record = None,
    snapshot: Snapshot = None,
    report: Report = None,
    duration: Duration = None,
    log_level: LogLevel = None,
    log_format: LogFormat = "console",
) -> None:
    """Watch a broadcast: call the broadcaster's number."""
    defaults, known_pin, pressed = _defaults(context), pin_of(pin), keys_of(keys)
    options = PhoneOptions(
        line_of(defaults, server, transport, number, password, password_file, log_level),
        media_of(defaults, None, None, speaker, None, None, None, False, True, record, snapshot),
        receive=receive or ("now" if known_pin or pressed else defaults.receive),
        keys=pressed,
        pin=known_pin,
        duration=duration,
        report=report,
    )
    _run(options, _journal(log_format, log_level), lambda it: it.watch(channel), receives=True)


@phone.command(
    short_help="Take ordinary calls, with sound and picture.",
    epilog="Example: dialcast phone answer --number 1002 --auto",
)
def answer(
    context: typer.Context,
    server: Server = None,
    transport: TransportName = None,
    number: Number = None,
    password: Password = None,
    password_file: PasswordFile = None,
    auto: Annotated[bool, typer.Option(help="Answer without asking (key a).")] = False,
    once: Annotated[bool, typer.Option(help="Leave after the first call.")] = False,
    camera: Camera = None,
    microphone: Microphone = None,
    speaker: Speaker = None,
    size: Size = None,
    fps: Fps = None,
    bitrate: Bitrate = None,
    stamp: Stamp = False,
    record: Record = None,
    snapshot: Snapshot = None,
    report: Report = None,
    duration: Duration = None,
    log_level: LogLevel = None,
    log_format: LogFormat = "console",
) -> None:
    """Wait for ordinary calls and take them, with sound and picture both ways."""
    defaults = _defaults(context)
    options = PhoneOptions(
        line_of(defaults, server, transport, number, password, password_file, log_level),
        media_of(defaults, camera, microphone, speaker, size, fps, bitrate, stamp, True, record, snapshot),
        duration=duration,
        report=report,
    )
    journal = _journal(log_format, log_level)
    _run(options, journal, lambda it: it.take_calls(auto=auto, once=once), sends=True, receives=True)


@codes.command("dial", epilog="Example: dialcast phone codes dial '*21*1002#' --number 1001")
def dial_code(
    context: typer.Context,
    code: Annotated[str, typer.Argument(metavar="CODE", help="The code, quoted for the shell.")],
    server: Server = None,
    transport: TransportName = None,
    number: Number = None,
    password: Password = None,
    password_file: PasswordFile = None,
    report: Annotated[Path | None, typer.Option(hidden=True)] = None,
    log_level: LogLevel = None,
    log_format: LogFormat = "console",
) -> None:
    """Dial a service code and say what the network answered."""
    line = line_of(_defaults(context), server, transport, number, password, password_file, log_level)
    _run(PhoneOptions(line, report=report), _journal(log_format, log_level), lambda it: it.dial_code(code))


@codes.command("list")
def list_codes() -> None:
    """The codes there are."""
    table = Table("code", "what it does")
    for code, meaning in CODES:
        table.add_row(code, meaning)
    Console().print(table)


def _run(
    options: PhoneOptions,
    journal: Journal,
    act: Callable[[Phone], Awaitable[Outcome]],
    *,
    sends: bool = False,
    receives: bool = False,
) -> None:
    """Have the phone act, and exit with what became of it; `sends` and `receives` say what must be at hand for it."""
    for complaint in unwritable(options.media, options.report):
        raise usage(complaint)
    try:
        media, remark = rehearsed(options.media, sends=sends, receives=receives)
    except SourceError as error:
        raise usage(str(error), MEDIA_FAILED) from None
    options = replace(options, media=media)

    async def main() -> Outcome:
        loop = asyncio.get_running_loop()
        with TerminalScreen(f"dialcast phone {options.line.number}") as screen, ExitStack() as stack:
            if remark:
                screen.say(remark)
            doing = asyncio.ensure_future(act(Phone(options, screen, journal, open_line, MediaSession)))
            interrupts = 0

            def interrupted() -> None:
                """The first time as `q`: hang up properly. The second time at once."""
                nonlocal interrupts
                interrupts += 1
                if interrupts == 1:
                    screen.keys.put_nowait("q")
                else:
                    doing.cancel()

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, interrupted)
                stack.callback(loop.remove_signal_handler, number)
            try:
                return await doing
            except asyncio.CancelledError:
                return Outcome(INTERRUPTED, 0, "interrupted")

    outcome = asyncio.run(main())
    if outcome.code:
        typer.echo(f"dialcast phone: {printable(outcome.told)}", err=True)
    raise typer.Exit(outcome.code)


def _defaults(context: typer.Context) -> TerminalConfig:
    """The configuration's section, if the command above put it in the context; else its defaults."""
    return context.find_object(TerminalConfig) or Config().phone


def _journal(form: Literal["console", "json"], level: Level | None) -> Journal:
    return Journal(form, level or ("info" if form == "json" else "warning"))
