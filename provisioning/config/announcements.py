"""The section about announcements: what callers are told by voice, and how keys are taken."""

from typing import Annotated

from pydantic import Field

from protocols.prompts import Language
from provisioning.config.section import Section
from provisioning.value_types import Count, Seconds


class AnnouncementsConfig(Section):
    """Announcements: recorded prompts spoken by the relay, and keys (DTMF) pressed in answer."""

    language: Language = "en"
    """Language spoken to callers whose phone names none that we speak (Accept-Language)."""
    codes: bool = True
    """Confirm dialled service codes by voice where the phone can hear it. Off, such calls end at once with
    the words in their Reason only."""
    refusals: bool = False
    """Say why before a code or a viewer is refused (private, full, over, no such code), as early media of a
    call that is not answered. Off, phones show the refusal at once."""
    key_timeout: Seconds = 10
    """Seconds to wait for the next key before what was pressed so far counts."""
    pin_tries: Annotated[int, Field(ge=1, le=10)] = 3
    """Times one call is asked for a PIN; after the last it is ended. What was pressed, unless nothing was, counts
    for `channels.pin_attempts_*`."""
    pin_calls: Count = 80
    """Calls being asked for a PIN at once; above it 486. Below `relay.max_announcements` it leaves room for
    codes."""
