"""The options of the phone's commands, shared by them, and what they mean beside the configuration."""

import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

import typer

from protocols.net import Address
from protocols.pin import PIN_DIGITS
from provisioning.config import TerminalConfig, sample_password
from terminal_client.journal import Level
from terminal_client.keypad import KEYS, PAUSE
from terminal_client.outcome import Choice
from terminal_client.signalling import LineOptions
from terminal_client.streams import MediaOptions

USAGE = 1
"""Exit code of a mistake on the command line."""
Transport = Literal["udp", "tcp"]
NO_TLS = (
    "this phone does not speak SIP over TLS: the library it is built on carries OpenSSL 1.0.2, which gets no security "
    "fixes any more. Take tcp, or a phone that speaks TLS"
)


def _transport(name: str) -> str:
    if name.lower() == "tls":
        raise typer.BadParameter(NO_TLS)
    if name not in ("udp", "tcp"):
        raise typer.BadParameter(f"{name!r} is neither udp nor tcp.")
    return name


Server = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="SIP server.", envvar="DIALCAST_SERVER")]
TransportName = Annotated[
    Transport | None,
    typer.Option(
        help="Signalling transport.", metavar="[udp|tcp]", parser=_transport, autocompletion=lambda: ["udp", "tcp"]
    ),
]
Number = Annotated[str | None, typer.Option(metavar="NUMBER", help="Your own number.", envvar="DIALCAST_NUMBER")]
Password = Annotated[
    str | None,
    typer.Option(metavar="PASSWORD", help="Your password; better in the environment.", envvar="DIALCAST_PASSWORD"),
]
PasswordFile = Annotated[Path | None, typer.Option(metavar="FILE", help="File whose first line is your password.")]
Camera = Annotated[
    list[str] | None,
    typer.Option(metavar="SOURCE", help="`synthetic`, a video file or a device index; repeat to switch."),
]
Microphone = Annotated[
    str | None, typer.Option(metavar="SOURCE", help="`synthetic`, `none`, `default` (the device) or a sound file.")
]
Speaker = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="`default` (the device), `none` or FILE.wav; a script's phone has none."),
]
Size = Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Picture size.")]
Fps = Annotated[int | None, typer.Option(metavar="COUNT", help="Pictures a second.", min=1, max=60)]
Bitrate = Annotated[int | None, typer.Option(metavar="BIT/S", help="Video bit rate, bit/s.", min=32_000)]
Stamp = Annotated[bool, typer.Option(help="Draw a frame counter into the picture.")]
Keys = Annotated[
    str | None,
    typer.Option(
        metavar="KEYS", help="Press these as soon as the call is connected, `,` waits a second; for a PIN take --pin."
    ),
]
AskPin = Annotated[
    bool, typer.Option("--pin", help="Ask for the PIN of a private broadcast before calling; else DIALCAST_PIN.")
]
SendWhen = Annotated[Choice | None, typer.Option(metavar="[ask|now]", help="Send when asked (key s), or now.")]
ReceiveWhen = Annotated[Choice | None, typer.Option(metavar="[ask|now]", help="Receive when asked (key r), or now.")]
Record = Annotated[Path | None, typer.Option(metavar="FILE.mp4", help="Record.")]
Snapshot = Annotated[Path | None, typer.Option(metavar="FILE.png", help="Save the picture.")]
Report = Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write down what happened.")]
Duration = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Hang up so many seconds after the answer.", min=0)
]
LogLevel = Annotated[
    Level | None,
    typer.Option(metavar="[debug|info|warning|error]", help="What is logged on stderr; debug shows SIP messages."),
]
LogFormat = Annotated[Literal["console", "json"], typer.Option(metavar="[console|json]", help="How it is logged.")]


def line_of(
    defaults: TerminalConfig,
    server: str | None,
    transport: Transport | None,
    number: str | None,
    password: str | None,
    password_file: Path | None,
    log_level: Level | None,
) -> LineOptions:
    number = number or defaults.number
    if number is None:
        raise usage("which number is yours? --number 1001, DIALCAST_NUMBER or terminal.number")
    address = _resolved(server or defaults.server or "")
    if password is None and password_file is not None:
        try:
            password = password_file.read_text().split("\n", 1)[0].strip()
        except OSError as error:
            raise usage(f"{password_file}: {error.strerror}") from None
    if password is None and defaults.password is not None:
        password = defaults.password.get_secret_value()
    if password is None and ip_address(address.host).is_loopback:
        password = sample_password(number)
    if password is None:
        raise usage("no password: DIALCAST_PASSWORD, --password-file or --password")
    return LineOptions(
        address,
        number,
        password,
        transport or defaults.transport,
        local_host=_local_host(address),
        expires=defaults.register_expires,
        debug=log_level == "debug",
    )


def media_of(
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
        raise usage(f"--size {size}: write WIDTHxHEIGHT, for example 352x288")
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


def pin_of(ask: bool) -> str:
    """The PIN to answer with: asked for unseen, or from the environment; "" for none. It is on no command line."""
    if ask and not sys.stdin.isatty():
        raise usage("no terminal to ask for the PIN on: set DIALCAST_PIN")
    pin = str(typer.prompt("PIN", hide_input=True)) if ask else os.environ.get("DIALCAST_PIN", "")
    if pin and not PIN_DIGITS.fullmatch(pin):
        raise usage("a PIN has 4 to 12 digits")
    return pin


def keys_of(keys: str | None) -> str:
    """The keys to press."""
    if not set(keys or "") <= {*KEYS, PAUSE}:
        raise usage(f"--keys {keys}: only 0-9, * and #, and {PAUSE} for a pause")
    return keys or ""


def _resolved(server: str) -> Address:
    """HOST, HOST:PORT or [IPv6]:PORT as a numeric address: pjsua2 must never look names up."""
    host, _, port = server.rpartition(":") if not server.endswith("]") and ":" in server else (server, "", "5060")
    if not port.isdigit() or not host:
        raise usage(f"--server {server}: write HOST:PORT")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (OSError, OverflowError) as error:
        raise usage(f"--server {server}: {error}") from None
    return Address(str(found[0][4][0]), int(port))


def _local_host(server: Address) -> str:
    """Our address on the way to the server; nothing is sent."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((server.host, server.port or 5060))
        except OSError as error:
            raise usage(f"no way to {server}: {error.strerror}") from None
        return str(probe.getsockname()[0])


def usage(text: str, code: int = USAGE) -> typer.Exit:
    typer.echo(f"dialcast phone: {text}", err=True)
    return typer.Exit(code)
