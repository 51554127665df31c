"""The control link between application server (AS) and relay: every command, reply and event, as typed values.

The AS dials, says `Hello` first, and then opens groups and adds legs; the relay reports what becomes of them.
What a leg is, as it is asked for and as it is granted, `protocols.control_legs` says.
On the wire each value is one AMP box (`protocols.control_amp`) with a name and a JSON body (`protocols.control_json`).
An AMP value ends at 64 KiB, so `List` is paged: at most `PAGE_LEGS` rows and `PAGE_BYTES` a page.

Rules: a leg's and a group's commands are idempotent by id (the same `OpenGroup` again gives the same answer);
a group belongs to the AS that opened it; `epoch` numbers the broadcasts of one channel, and a command that names
an older one is refused with `stale-epoch`, so that nothing late touches a new broadcast. An announcement is a group of
one leg that the relay itself speaks to: listed, updated, claimed, orphaned and closed like any other.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeVar

from protocols.control_legs import KeptMedia, LegInfo, LegMedia, LegPlace, LegSpec, MediaKind, MediaSpec
from protocols.prompts import Language, Prompt

# Of `control_legs`, too, so that the whole vocabulary is found here.
__all__ = ["KeptMedia", "LegInfo", "LegMedia", "LegPlace", "LegSpec", "MediaKind", "MediaSpec"]

VERSION = 2
PAGE_LEGS = 200
PAGE_BYTES = 32 * 1024

PromptEnd = Literal["played", "stopped", "unheard"]
ErrorCode = Literal[
    "bad-request",
    "denied",
    "version",
    "not-owner",
    "unknown-group",
    "unknown-leg",
    "stale-epoch",
    "limit",
    "unsupported",
]


class ControlError(ValueError):
    """A command refused by the relay, or a body that is not what its name promises."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code: ErrorCode = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Hello:
    """First on every connection. `epoch` grows with each start of the AS; `token` is the shared secret."""

    as_id: str
    epoch: int
    token: str = field(repr=False)
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class HelloReply:
    """`instance` changes with every start of the relay: a new one means that its groups are gone."""

    relay_id: str
    instance: str
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """Create the group with its source leg. Answered by `LegInfo`."""

    group_id: str
    epoch: int
    leg: LegSpec


@dataclass(frozen=True, slots=True)
class ReplaceSource:
    """The same subscriber dialled again within the grace: a new source leg takes over. Answered by `LegInfo`."""

    group_id: str
    epoch: int
    leg: LegSpec


@dataclass(frozen=True, slots=True)
class AddViewer:
    """Add a sink leg. Answered by `LegInfo`.

    A leg of this id that is announced to moves into the group with its addresses; its announcement is over.
    """

    group_id: str
    epoch: int
    leg: LegSpec


@dataclass(frozen=True, slots=True)
class UpdateLeg:
    """New negotiation for an existing leg (hold, address change). Answered by `LegInfo`."""

    group_id: str
    epoch: int
    leg: LegSpec


@dataclass(frozen=True, slots=True)
class RemoveLeg:
    """The leg's call is over. Removing an unknown leg is no error."""

    group_id: str
    epoch: int
    leg_id: str


@dataclass(frozen=True, slots=True)
class CloseGroup:
    """Stop the media of all legs and forget the group. Closing an unknown group is no error."""

    group_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class RequestKeyframe:
    """Ask the source for a keyframe, within the relay's coalescing limits."""

    group_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class OpenAnnouncement:
    """Create a group of one leg that prompts are played to and keys are heard from. Answered by `LegInfo`."""

    group_id: str
    epoch: int
    leg: LegSpec


@dataclass(frozen=True, slots=True)
class PlayPrompt:
    """Speak these prompts to an announcement's leg, after those that still play. `PromptEnded` tells when.

    `play` numbers the wishes of a leg, rising: the same or an earlier number again changes nothing.
    """

    group_id: str
    epoch: int
    leg_id: str
    play: int
    prompts: tuple[Prompt, ...]
    language: Language


@dataclass(frozen=True, slots=True)
class StopPrompt:
    """Be silent: forget what plays and what waits. No error where nothing plays."""

    group_id: str
    epoch: int
    leg_id: str


@dataclass(frozen=True, slots=True)
class ClaimGroup:
    """Take over a group, by the AS that now holds its lease: an orphan, or that of `from_as`, the one that held the
    lease before and may hang with its link open."""

    group_id: str
    epoch: int
    from_as: str = ""


@dataclass(frozen=True, slots=True)
class ListLegs:
    """The caller's own legs, after the given `(group_id, leg_id)` cursor. Answered by `LegPage`."""

    after: tuple[str, str] = ("", "")
    limit: int = PAGE_LEGS


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to commands that return nothing."""


@dataclass(frozen=True, slots=True)
class LegRow:
    """One leg in a listing; ages in seconds, None before the first authentic packet."""

    group_id: str
    epoch: int
    leg_id: str
    role: Literal["source", "sink", "announcement"]
    joined: bool
    lost: bool
    silent_for: float | None
    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class LegPage:
    """A page of legs in `(group_id, leg_id)` order; `next` is the cursor to go on with, None at the end."""

    rows: tuple[LegRow, ...]
    next: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class LegJoined:
    """Every accepted m-line of the leg had an authenticated, nominated check (or latched, for a phone without ICE)."""

    group_id: str
    epoch: int
    leg_id: str


@dataclass(frozen=True, slots=True)
class LegLost:
    """Nothing authentic from this leg for `leg_timeout`, or its consent ran out."""

    group_id: str
    epoch: int
    leg_id: str
    cause: str


@dataclass(frozen=True, slots=True)
class LegBack:
    """A lost leg is heard again."""

    group_id: str
    epoch: int
    leg_id: str


@dataclass(frozen=True, slots=True)
class LegPlaced:
    """Where a leg's peer is, of all media that were proven; told when that changed, at most once a second."""

    group_id: str
    epoch: int
    leg_id: str
    places: tuple[LegPlace, ...]


@dataclass(frozen=True, slots=True)
class KeyframeWanted:
    """The source understands neither PLI nor FIR: ask it by SIP INFO (RFC 5168)."""

    group_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class MediaStarted:
    """First media packet of the group's source (per kind): the broadcast is on the air."""

    group_id: str
    epoch: int
    leg_id: str
    kind: MediaKind


@dataclass(frozen=True, slots=True)
class LegReport:
    """A leg's final counters, for the record of its call: RTP packets, and octets of their payload.

    What the relay sent is without headers; what it received counts whole packets. `lost` is what was missing of the
    source's packets here, or of ours by a viewer's RTCP reports; None when nobody reported.
    """

    leg_id: str
    role: Literal["source", "sink", "announcement"]
    packets_in: int
    octets_in: int
    packets_out: int
    octets_out: int
    lost: int | None


@dataclass(frozen=True, slots=True)
class LegReports:
    """Legs that were just removed, at most `PAGE_LEGS`; comes before the answer to the command that removed them."""

    group_id: str
    epoch: int
    reports: tuple[LegReport, ...]


@dataclass(frozen=True, slots=True)
class PromptEnded:
    """The prompts of one `PlayPrompt` are over; `unheard` if the leg had no address that proved itself in time."""

    group_id: str
    epoch: int
    leg_id: str
    play: int
    cause: PromptEnd


@dataclass(frozen=True, slots=True)
class Digit:
    """A key was pressed and released on an announcement's leg: 0-9, *, #, A-D; milliseconds it was held."""

    group_id: str
    epoch: int
    leg_id: str
    digit: str = field(repr=False)
    duration_ms: int


@dataclass(frozen=True, slots=True)
class GroupClosed:
    """The relay closed the group on its own (orphaned too long, failure)."""

    group_id: str
    epoch: int
    cause: str


GroupCommand = (
    OpenGroup
    | ReplaceSource
    | AddViewer
    | UpdateLeg
    | RemoveLeg
    | CloseGroup
    | RequestKeyframe
    | OpenAnnouncement
    | PlayPrompt
    | StopPrompt
    | ClaimGroup
)
"""What is asked of one group; each has its `group_id` and `epoch`."""
Command = Hello | ListLegs | GroupCommand
Reply = HelloReply | LegInfo | LegPage | Done
Event = (
    LegJoined
    | LegLost
    | LegBack
    | LegPlaced
    | KeyframeWanted
    | MediaStarted
    | LegReports
    | PromptEnded
    | Digit
    | GroupClosed
)
Value = Command | Reply | Event

V = TypeVar("V")


def expect(value: Value, kind: type[V]) -> V:
    """`value` when it is of the kind the protocol calls for; `ControlError` otherwise."""
    if not isinstance(value, kind):
        raise ControlError("bad-request", f"expected {kind.__name__}, got {type(value).__name__}")
    return value
