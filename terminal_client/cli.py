"""The command line of the phone, `dialcast phone ...`: broadcast, watch, answer, codes.

Exit codes: 0 ended normally, 1 wrong usage or settings, 2 registration refused, 3 call refused or unreachable, 4 media
failed, 5 lost, 130 interrupted before the call was answered.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from protocols.net import Address
from provisioning.config import TerminalConfig, sample_password
from terminal_client.codes import CODES
from terminal_client.journal import Journal, Level
from terminal_client.media import MediaSession
from terminal_client.outcome import INTERRUPTED, MEDIA_FAILED, Choice, Outcome, PhoneOptions
from terminal_client.phone import Phone
from terminal_client.rehearsal import rehearsed, unwritable
from terminal_client.screen import TerminalScreen
from terminal_client.signalling import LineOptions, open_line
from terminal_client.sip_text import printable
from terminal_client.streams import MediaOptions, SourceError

USAGE = 1
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
    epilog="Keys while connected: s send, r receive, c next camera, m mute, p snapshot, q hang up; without a terminal "
    "the same letters as lines on stdin. Example: dialcast phone broadcast --number 1001 --send now",
)
codes = typer.Typer(help="Service codes: forwarding of your own number.", no_args_is_help=True, rich_markup_mode=None)
phone.add_typer(codes, name="codes")

Server = Annotated[str | None, typer.Option(help="SIP server, HOST:PORT.", envvar="DIALCAST_SERVER")]
TransportName = Annotated[Literal["udp", "tcp"] | None, typer.Option(help="Signalling transport: udp or tcp.")]
Number = Annotated[str | None, typer.Option(help="Your own number.", envvar="DIALCAST_NUMBER")]
Password = Annotated[
    str | None, typer.Option(help="Your password; better in the environment.", envvar="DIALCAST_PASSWORD")
]
PasswordFile = Annotated[Path | None, typer.Option(help="File whose first line is your password.")]
Camera = Annotated[
    list[str] | None, typer.Option(help="`synthetic`, a video file or a device index; repeat to switch.")
]
Microphone = Annotated[str | None, typer.Option(help="`synthetic`, `none`, `default` (the device) or a sound file.")]
Speaker = Annotated[
    str | None, typer.Option(help="`default` (the device), `none` or FILE.wav; a script's phone has none.")
]
Size = Annotated[str | None, typer.Option(help="Picture size, WIDTHxHEIGHT.")]
Fps = Annotated[int | None, typer.Option(help="Pictures a second.", min=1, max=60)]
Bitrate = Annotated[int | None, typer.Option(help="Video bit rate, bit/s.", min=32_000)]
Stamp = Annotated[bool, typer.Option(help="Draw a frame counter into the picture.")]
SendWhen = Annotated[Choice | None, typer.Option(help="Send when asked (key s), or now.")]
ReceiveWhen = Annotated[Choice | None, typer.Option(help="Receive when asked (key r), or now.")]
Record = Annotated[Path | None, typer.Option(help="Record to FILE.mp4.")]
Snapshot = Annotated[Path | None, typer.Option(help="Save the picture as FILE.png.")]
Report = Annotated[Path | None, typer.Option(help="Write what happened to FILE.json.")]
Duration = Annotated[float | None, typer.Option(help="Hang up so many seconds after the answer.", min=0)]
LogLevel = Annotated[Level | None, typer.Option(help="debug, info, warning or error; debug shows SIP messages.")]
LogFormat = Annotated[Literal["console", "json"], typer.Option(help="Events on stderr: console or json.")]


@phone.command(epilog="Example: dialcast phone broadcast --number 1001 --camera 0 --camera clip.mp4 --send now")
def broadcast(
    context: typer.Context,
    server: Server = None,
    transport: TransportName = None,
    number: Number = None,
    password: Password = None,
    password_file: PasswordFile = None,
    service: Annotated[str | None, typer.Option(help="Service number to dial.")] = None,
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
        _line(defaults, server, transport, number, password, password_file, log_level),
        _media(defaults, camera, microphone, "none", size, fps, bitrate, stamp, loop, record, snapshot),
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
    record: Record = None,
    snapshot: Snapshot = None,
    report: Report = None,
    duration: Duration = None,
    log_level: LogLevel = None,
    log_format: LogFormat = "console",
) -> None:
    """Watch a broadcast: call the broadcaster's number."""
    defaults = _defaults(context)
    options = PhoneOptions(
        _line(defaults, server, transport, number, password, password_file, log_level),
        _media(defaults, None, None, speaker, None, None, None, False, True, record, snapshot),
        receive=receive or defaults.receive,
        duration=duration,
        report=report,
    )
    _run(options, _journal(log_format, log_level), lambda it: it.watch(channel), receives=True)


@phone.command(epilog="Example: dialcast phone answer --number 1002 --auto")
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
        _line(defaults, server, transport, number, password, password_file, log_level),
        _media(defaults, camera, microphone, speaker, size, fps, bitrate, stamp, True, record, snapshot),
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
    line = _line(_defaults(context), server, transport, number, password, password_file, log_level)
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
        raise _usage(complaint)
    try:
        media, remark = rehearsed(options.media, sends=sends, receives=receives)
    except SourceError as error:
        raise _usage(str(error), MEDIA_FAILED) from None
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
    return context.find_object(TerminalConfig) or TerminalConfig()


def _journal(form: Literal["console", "json"], level: Level | None) -> Journal:
    return Journal(form, level or ("info" if form == "json" else "warning"))


def _line(
    defaults: TerminalConfig,
    server: str | None,
    transport: Literal["udp", "tcp"] | None,
    number: str | None,
    password: str | None,
    password_file: Path | None,
    log_level: Level | None,
) -> LineOptions:
    number = number or defaults.number
    if number is None:
        raise _usage("which number is yours? --number 1001, DIALCAST_NUMBER or terminal.number")
    address = _resolved(server or defaults.server)
    if password is None and password_file is not None:
        try:
            password = password_file.read_text().split("\n", 1)[0].strip()
        except OSError as error:
            raise _usage(f"{password_file}: {error.strerror}") from None
    if password is None and defaults.password is not None:
        password = defaults.password.get_secret_value()
    if password is None and ip_address(address.host).is_loopback:
        password = sample_password(number)
    if password is None:
        raise _usage("no password: DIALCAST_PASSWORD, --password-file or --password")
    return LineOptions(
        address,
        number,
        password,
        transport or defaults.transport,
        local_host=_local_host(address),
        expires=defaults.register_expires,
        debug=log_level == "debug",
    )


def _media(
    defaults: TerminalConfig,
    cameras: list[str] | None,
    microphone: str | None,
    speaker: str | None,
    size: str | None,
    fps: int | None,
    bitrate: int | None,
    stamp: bool,
    loop: bool,
    record: Path | None,
    snapshot: Path | None,
) -> MediaOptions:
    width, _, height = (size or defaults.video_size).partition("x")
    if not (width.isdigit() and height.isdigit() and 0 < int(width) <= 4096 and 0 < int(height) <= 4096):
        raise _usage(f"--size {size}: write WIDTHxHEIGHT, for example 352x288")
    chosen = speaker is not None or defaults.speaker != "default"
    if speaker is None:  # a phone run by a script must not fail for want of a sound card
        speaker = defaults.speaker if sys.stdout.isatty() else "none"
    return MediaOptions(
        cameras=tuple(cameras or defaults.camera),
        microphone=microphone or defaults.microphone,
        width=int(width),
        height=int(height),
        fps=fps or round(defaults.fps),
        video_bitrate=bitrate or defaults.video_bitrate,
        keyframe_seconds=defaults.keyframe_seconds,
        loop=loop,
        stamp=stamp,
        speaker=speaker,
        speaker_chosen=chosen,
        record=record,
        snapshot=snapshot,
        playout_ms=defaults.playout_ms,
        playout_max_ms=defaults.playout_max_ms,
    )


def _resolved(server: str) -> Address:
    """HOST, HOST:PORT or [IPv6]:PORT as a numeric address: pjsua2 must never look names up."""
    host, _, port = server.rpartition(":") if not server.endswith("]") and ":" in server else (server, "", "5060")
    if not port.isdigit() or not host:
        raise _usage(f"--server {server}: write HOST:PORT")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (OSError, OverflowError) as error:
        raise _usage(f"--server {server}: {error}") from None
    return Address(str(found[0][4][0]), int(port))


def _local_host(server: Address) -> str:
    """Our address on the way to the server; nothing is sent."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((server.host, server.port or 5060))
        except OSError as error:
            raise _usage(f"no way to {server}: {error.strerror}") from None
        return str(probe.getsockname()[0])


def _usage(text: str, code: int = USAGE) -> typer.Exit:
    typer.echo(f"dialcast phone: {text}", err=True)
    return typer.Exit(code)
