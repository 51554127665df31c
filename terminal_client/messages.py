"""What the phone and its pjsua2 child say to each other: frozen values, one JSON object a line, bounded.

Commands go down the child's stdin, events come up its stdout. The field `kind` names the message. SDP travels as text:
`media` is our own m-sections (each from `m=` on), `sdp` the far end's whole body, empty where a message had none.
"""

from dataclasses import field
from typing import Annotated, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from protocols.net import Address

MAX_LINE = 256 * 1024
"""Bytes in one message. A SIP message ends at 64 KiB; JSON may escape a byte as six."""

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True)


class MessageError(ValueError):
    """A line that is no message of ours."""


# Commands


@dataclass(frozen=True, slots=True, config=STRICT)
class Start:
    """Bring the SIP stack up on `host` (numeric), port chosen by the system. First command."""

    host: str
    transport: Literal["udp", "tcp"] = "udp"
    log_level: int = 0
    """pjsua's own level, 0 (nothing) to 5 (messages too), written to stderr."""
    kind: Literal["start"] = "start"


@dataclass(frozen=True, slots=True, config=STRICT)
class Register:
    """Create the account and, unless `registrar` is empty, register it and keep it registered."""

    uri: str
    registrar: str
    user: str
    password: str = field(repr=False)
    expires: int = 300
    contact_params: str = ""
    kind: Literal["register"] = "register"


@dataclass(frozen=True, slots=True, config=STRICT)
class Dial:
    """Send an INVITE; `call` is the parent's number for the call from now on."""

    call: int
    uri: str
    media: str
    headers: tuple[tuple[str, str], ...] = ()
    kind: Literal["dial"] = "dial"


@dataclass(frozen=True, slots=True, config=STRICT)
class Listen:
    """Take the next incoming call with these m-sections. Each call uses them up; without them callers hear busy."""

    media: str
    kind: Literal["listen"] = "listen"


@dataclass(frozen=True, slots=True, config=STRICT)
class Answer:
    """Answer an incoming call: ring (180), accept (200) or refuse it."""

    call: int
    status: int
    reason: str = ""
    kind: Literal["answer"] = "answer"


@dataclass(frozen=True, slots=True, config=STRICT)
class Reoffer:
    """Send a re-INVITE offering `media`."""

    call: int
    media: str
    kind: Literal["reoffer"] = "reoffer"


@dataclass(frozen=True, slots=True, config=STRICT)
class Hangup:
    """End the call as its state asks: CANCEL, refusal or BYE. `reason` is a Reason header's value (RFC 3326)."""

    call: int
    reason: str = ""
    kind: Literal["hangup"] = "hangup"


@dataclass(frozen=True, slots=True, config=STRICT)
class Say:
    """Send text within the call (MESSAGE, RFC 3428)."""

    call: int
    text: str
    kind: Literal["say"] = "say"


@dataclass(frozen=True, slots=True, config=STRICT)
class Press:
    """Send a key in INFO (`application/dtmf-relay`), for a far end that knows no telephone events."""

    call: int
    key: str = field(repr=False)
    kind: Literal["press"] = "press"


@dataclass(frozen=True, slots=True, config=STRICT)
class Quit:
    """Hang up, deregister, exit. Without it (stdin just ends) the child falls silent, as a phone that crashed."""

    kind: Literal["quit"] = "quit"


# Events


@dataclass(frozen=True, slots=True, config=STRICT)
class Ready:
    """The stack is up at `address`; `warning` tells what it has to do without."""

    address: Address
    codecs: tuple[str, ...]
    warning: str = ""
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True, config=STRICT)
class Registration:
    """The registrar answered, or did not (408), or the registration was given up (`expires` 0)."""

    status: int
    reason: str
    expires: int
    kind: Literal["registration"] = "registration"


@dataclass(frozen=True, slots=True, config=STRICT)
class Incoming:
    """Somebody calls. `call` is negative: numbers that the child gives."""

    call: int
    caller: str
    callee: str
    sdp: str
    kind: Literal["incoming"] = "incoming"


@dataclass(frozen=True, slots=True, config=STRICT)
class Progress:
    """A provisional answer above 100 to our INVITE."""

    call: int
    status: int
    reason: str
    contact: str
    sdp: str
    kind: Literal["progress"] = "progress"


@dataclass(frozen=True, slots=True, config=STRICT)
class Answered:
    """Our INVITE got its 2xx, or the far end acknowledged ours."""

    call: int
    status: int
    reason: str
    contact: str
    sdp: str
    kind: Literal["answered"] = "answered"


@dataclass(frozen=True, slots=True, config=STRICT)
class Reoffered:
    """The far end sent a new offer inside the call (re-INVITE, UPDATE) and we agreed."""

    call: int
    sdp: str
    kind: Literal["reoffered"] = "reoffered"


@dataclass(frozen=True, slots=True, config=STRICT)
class Reanswered:
    """The far end answered our re-INVITE; a refusal leaves the call as it was."""

    call: int
    status: int
    reason: str
    sdp: str
    kind: Literal["reanswered"] = "reanswered"


@dataclass(frozen=True, slots=True, config=STRICT)
class Ended:
    """The call is over. `status` and `reason` are the final answer's, `why` the Reason header's value (RFC 3326)."""

    call: int
    status: int
    reason: str
    why: str = ""
    kind: Literal["ended"] = "ended"


@dataclass(frozen=True, slots=True, config=STRICT)
class Said:
    """Somebody sent text: within the call or, `call` being 0, outside of any. `sender` is a From header's value."""

    call: int
    sender: str
    text: str
    kind: Literal["said"] = "said"


@dataclass(frozen=True, slots=True, config=STRICT)
class Unsaid:
    """Text of ours was not taken."""

    call: int
    status: int
    reason: str
    kind: Literal["unsaid"] = "unsaid"


@dataclass(frozen=True, slots=True, config=STRICT)
class Trouble:
    """The stack refused a command or complained; the call, if any is named, gets its own Ended."""

    text: str
    call: int = 0
    kind: Literal["trouble"] = "trouble"


Command = Start | Register | Listen | Dial | Answer | Reoffer | Hangup | Say | Press | Quit
CallEvent = Incoming | Progress | Answered | Reoffered | Reanswered | Said | Unsaid | Ended
Event = Ready | Registration | CallEvent | Trouble

_COMMANDS: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="kind")])
_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def encode(message: Command | Event) -> bytes:
    """The message as one line, newline included."""
    text = _COMMANDS.dump_json(message) if isinstance(message, Command) else _EVENTS.dump_json(message)
    return text + b"\n"


def decode_command(line: bytes) -> Command:
    """The child's side. Raises MessageError."""
    return _decode(_COMMANDS, line)


def decode_event(line: bytes) -> Event:
    """The parent's side. Raises MessageError."""
    return _decode(_EVENTS, line)


def _decode(adapter: TypeAdapter[T], line: bytes) -> T:
    if len(line) > MAX_LINE:
        raise MessageError(f"a message of {len(line)} bytes")
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        # Not the input itself: it may hold a password.
        details = error.errors(include_input=False, include_url=False)
        raise MessageError(f"{details[0]['msg']} at {details[0]['loc']}") from None
