"""What a user asks the phone for, and how a call ended: values shared by the phone's parts and its command line."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from terminal_client.codes import is_normal, is_refusal, reason_text
from terminal_client.messages import Ended
from terminal_client.signalling import LineOptions
from terminal_client.streams import MediaOptions

Choice = Literal["ask", "now"]
OK, REFUSED_REGISTRATION, REFUSED_CALL, MEDIA_FAILED, LOST, INTERRUPTED = 0, 2, 3, 4, 5, 130
"""Exit codes; 1 is a mistake in the command line."""
LOST_STATUS = frozenset({408, 481, 503, 504})


@dataclass(frozen=True, slots=True)
class PhoneOptions:
    """What the user asked for."""

    line: LineOptions
    media: MediaOptions = field(default_factory=MediaOptions)
    service: str = "8888"
    send: Choice = "ask"
    receive: Choice = "ask"
    duration: float | None = None
    """Seconds after the answer at which the phone hangs up by itself."""
    redial: bool = True
    grace: float = 30.0
    """How long a lost broadcaster tries to come back, seconds: the network keeps the group as long."""
    report: Path | None = None
    keys: str = field(default="", repr=False)
    """Pressed as soon as the far end takes our media; `,` is a pause of a second."""
    pin: str = field(default="", repr=False)
    """Pressed, once, if there is a voice and no picture."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: the exit code, the SIP status (0 for none) and words for the user."""

    code: int
    status: int = 0
    reason: str = ""
    redialable: bool = False
    words: str = ""
    """What to tell the user instead of status and reason."""

    @property
    def told(self) -> str:
        """One line for the user; the status of a success explains nothing."""
        return self.words or (f"{self.status} {self.reason}" if self.status >= 300 else self.reason)


def advised(outcome: Outcome, dialled: str, own: str, *, service: bool) -> Outcome:
    """With a remedy in words, where a refusal has one the caller can take."""
    if outcome.code != REFUSED_CALL or outcome.words or outcome.status in LOST_STATUS:
        return outcome
    if outcome.status == 480 and outcome.reason.endswith("Is Not Registered"):
        return replace(outcome, words=f"{dialled} is not live and no phone of it is registered")
    if dialled == own:
        remedy = f"{own} is your own number: watch with another, as --number 1002"
    elif outcome.status != 404:
        return outcome
    elif service:
        remedy = f"{dialled} is no service number there: name one with --service"
    else:
        remedy = f"there is no number {dialled}: name the number of who broadcasts"
    return replace(outcome, words=f"{outcome.told}: {remedy}")


def judged(ended: Ended, *, answered: bool, nothing_received: bool) -> Outcome:
    """What the far end's last word means for a script and for a person."""
    reason = reason_text(ended.why) or ended.reason
    if not answered or is_refusal(ended.why):
        return Outcome(REFUSED_CALL, 0 if answered else ended.status, reason)
    if ended.status in LOST_STATUS:
        return Outcome(LOST, ended.status, reason, redialable=True)
    if not is_normal(ended.why):
        return Outcome(LOST, ended.status, reason)
    return Outcome(MEDIA_FAILED if nothing_received else OK, ended.status, reason)
