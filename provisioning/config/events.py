"""The sections about what others may follow and say: subscriptions (RFC 6665), and messages within a broadcast."""

from typing import Annotated, Literal

from pydantic import Field

from provisioning.config.section import Section
from provisioning.value_types import Count, Delay


class EventsConfig(Section):
    """Subscriptions: who is live (`presence`, `dialog`), and who takes part in a broadcast (`conference`)."""

    max_subscriptions: Count = 10_000
    """Subscriptions at once; above it 503. About 3 kB each."""
    max_subscriptions_per_account: Count = 100
    """Subscriptions of one subscriber's phones together; above it 403. A buddy list or a row of lamp keys needs
    one each."""
    min_expires: Annotated[int, Field(ge=1, le=3600)] = 60
    """Shortest subscription accepted, seconds; below it 423. Shorter notices dead watchers sooner, at more
    messages."""
    max_expires: Annotated[int, Field(ge=60)] = 3_600
    """Longest subscription granted, seconds, and what is granted when none is asked for."""
    notify_interval: Delay = 1
    """Seconds between two notifications of one subscription; changes in between are told together."""
    notify_rate: Count = 1_000
    """Notifications a second in all. Lower spares the signalling path when a thousand viewers join at once,
    and tells the last watcher later."""
    conference_watchers: Literal["participants", "subscribers"] = "participants"
    """Who may ask how many take part in a broadcast: its broadcaster and viewers, or every subscriber. Names are
    told to the broadcaster only."""
    roster_limit: Count = 1_000
    """Viewers named to the broadcaster; the count stays right beyond it."""
    document_bytes: Annotated[int, Field(ge=1_000, le=48_000)] = 3_000
    """Size of one document of the roster, bytes; the rest follows in the next. PJSIP's phones take messages of
    4,000 bytes in all; raise it where all phones take more, and a long roster is complete sooner."""
    presence_watchers: Literal["subscribers", "own", "nobody"] = "subscribers"
    """Whose presence and lamp a subscriber may follow: everybody's, its own number's, or none (such subscriptions
    then go to the phone itself)."""


class MessagesConfig(Section):
    """Text messages within a broadcast: viewers ask, the broadcaster answers all."""

    max_bytes: Annotated[int, Field(ge=1, le=8_000)] = 800
    """Longest text, bytes; above it 413. With its header fields a message should stay within the 1,300 bytes that
    RFC 3428 allows over UDP."""
    per_minute: Count = 20
    """Messages a minute from one account, in bursts of as many; above it 480."""
    max_waiting: Count = 2_000
    """Deliveries that may wait within one broadcast, one for each viewer of an answer and for each question; above it
    480, unless nothing waits. At `rate` 200 that is 10 s of talk."""
    rate: Count = 200
    """Messages a second in all to viewers and broadcasters. An answer to 1,000 viewers takes 5 s at 200."""
