"""What the application server knows of its broadcasts: one group per live channel, its source, its viewers."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import structlog

from protocols.control import CloseGroup, ControlError, Done, Event, LegReports, LegSpec, RemoveLeg, RequestKeyframe
from protocols.records import Broadcast
from protocols.sip.message import Request
from provisioning.config import Config, ServicePolicy, service_policies
from sip_app.broadcast.media import GroupFormat, Role, dump_formats
from sip_app.broadcast.policy import Gate
from sip_app.broadcast.relay_link import RelayUnavailable
from sip_app.broadcast.relays import RelayPool
from sip_app.calls.incoming import Dialog, IncomingCall, Rejected
from sip_app.element.tasks import Tasks
from sip_app.numbers import domain_of
from sip_app.ports import Ports

LEASE = 30.0
"""Seconds a claim of a channel stands without being renewed; renewed every third of it."""
JUST_ENDED = 5.0
"""Seconds in which a terminal's own forwarding code may arrive after the end of the broadcast it was dialled for."""

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Viewer:
    """One confirmed view."""

    leg_id: str
    number: str
    dialog: Dialog
    since: float
    """Unix seconds."""
    sdp_version: int = 0
    caller: str = ""
    """`Caller.key` of who watches."""


@dataclass(slots=True, eq=False)
class LiveGroup:
    """One broadcast of a channel, from the service call to the last BYE. `closing` is final."""

    channel: str
    leg_id: str
    formats: tuple[GroupFormat, ...]
    service: str
    """The service number that was dialled, `number@domain`: calls of the channel are forwarded to it."""
    policy: ServicePolicy
    """That number's, as it was when the broadcast began, or this server."""
    epoch: int = 0
    state: Literal["opening", "live", "lost", "closing"] = "opening"
    opened_at: float = field(default_factory=time.time)
    source: Dialog | None = None
    source_version: int = 0
    viewers: dict[str, Viewer] = field(default_factory=dict)
    pending: set[IncomingCall] = field(default_factory=set)
    """Viewers' calls that are not answered yet."""
    at_pin: set[IncomingCall] = field(default_factory=set)
    """Those of them that are asked for the PIN: they take no place from whoever may watch."""
    joined: asyncio.Future[None] | None = None
    """Resolved by the relay's report while a joining source is awaited."""
    forwarded: bool = False
    """True once the overlay stands."""
    grace: asyncio.Task[None] | None = None
    deadline: asyncio.TimerHandle | None = None
    """Ends a broadcast that reaches the policy's `max_seconds`."""
    inherited_from: str = ""
    """The server it was taken over from."""
    unheard: bool = False
    """True from its opening until the relay takes media of its broadcaster."""
    replacing: bool = False
    """True while another call of the broadcaster takes over."""
    reopening: asyncio.Task[None] | None = None
    """Set from when its relay came back without it until all legs are there again."""
    reopened: tuple[float, int] = 0.0, 0
    """When that began last, on the monotonic clock, and how often in a row."""

    @property
    def number(self) -> str:
        """The broadcaster's number: what viewers call."""
        return self.channel.partition("@")[0]

    def room_for(self, more: int) -> bool:
        """True if so many of the pending calls, or of others, may still be let in."""
        waiting = len(self.pending) - len(self.at_pin)
        return len(self.viewers) + waiting + more <= self.policy.max_viewers

    def views_of(self, caller: str) -> int:
        """How many calls of one caller (`Caller.key`) watch, or are about to."""
        standing = sum(viewer.caller == caller for viewer in self.viewers.values())
        return standing + sum(call.caller.key == caller for call in self.pending)

    def over(self) -> bool:
        """True from the moment the end has begun."""
        return self.state == "closing"

    @property
    def session_id(self) -> int:
        """The o= line's session id for all descriptions of this broadcast."""
        return self.epoch

    def leg_keys(self, leg: LegSpec, role: Role, caller: str) -> dict[str, str]:
        """What a dialog remembers of its leg, so that a restarted server finds it again."""
        return {
            "group": self.channel,
            "epoch": str(self.epoch),
            "leg": leg.leg_id,
            "role": role,
            "number": leg.number,
            "caller": caller,
            "client": leg.client_address,
        }


class BroadcastObserver(Protocol):
    """Who follows the life of broadcasts (call records, the conference view, metrics). Nothing may block or raise."""

    def broadcast_live(self, group: LiveGroup) -> None:
        """The broadcaster was answered."""
        ...

    def broadcast_lost(self, group: LiveGroup) -> None:
        """The broadcaster vanished; the group waits for it."""
        ...

    def broadcast_back(self, group: LiveGroup) -> None:
        """The broadcaster called again and took its group over."""
        ...

    def broadcast_closing(self, group: LiveGroup) -> None:
        """The end of a broadcast has begun: the number is no longer live, its calls are about to be ended."""
        ...

    def broadcast_ended(self, group: LiveGroup, reason: str) -> None:
        """A broadcast that was live is over; `reason` is a Reason header value. Its viewers have left before."""
        ...

    def viewer_joined(self, group: LiveGroup, viewer: Viewer) -> None:
        """A viewer was answered."""
        ...

    def viewer_left(self, group: LiveGroup, viewer: Viewer, cause: str) -> None:
        """A viewer's call is over, or about to be ended by us."""
        ...


class Recorder(Protocol):
    """Who keeps the records of calls, beyond what it observes."""

    def media_ended(self, event: LegReports) -> None:
        """What the legs came to that the relay removed."""
        ...

    async def inherited(self, group: LiveGroup, from_as: str) -> None:
        """The group, with its viewers, was another server's until now. Raises OSError."""
        ...

    def abandoned(self, group: LiveGroup) -> None:
        """The group is another server's now."""
        ...


class GroupMessages(Protocol):
    """Who takes the text messages sent within a broadcast's calls (RFC 3428). Both raise `Rejected`."""

    def question(self, group: LiveGroup, viewer: Viewer, request: Request) -> None:
        """A viewer's message: for the broadcaster."""
        ...

    def answer(self, group: LiveGroup, request: Request) -> None:
        """The broadcaster's message: for all viewers."""
        ...


AskPin = Callable[["Broadcasting", IncomingCall, LiveGroup], Awaitable[None]]
"""Answers the call, asks for the PIN, has `Broadcasting.gate.verify_pin` judge it, and lets the viewer in or hangs up.
Raises `Rejected` and `CallGone` only before it answers."""


class AnnouncementCalls(Protocol):
    """Calls that the relay speaks to."""

    def relay_event(self, event: Event) -> bool:
        """True for a report about one of them."""
        ...

    async def refuse(self, call: IncomingCall, refusal: Rejected) -> None:
        """Refuse a call, with the reason spoken before where that is configured."""
        ...

    def holds(self, group_id: str) -> bool:
        """True if the relay's group of this name is one of them."""
        ...


async def _alone() -> None:
    """No other server shares our store."""


@dataclass(slots=True, eq=False)
class Broadcasting:
    """What all parts of the broadcast service share: configuration, ports, the relay, the open groups."""

    config: Config
    ports: Ports
    link: RelayPool
    as_id: str
    open: dict[str, LiveGroup] = field(default_factory=dict)
    """By channel; a group leaves it the moment it starts closing, so that a new broadcast can begin at once."""
    closing: set[LiveGroup] = field(default_factory=set)
    observers: list[BroadcastObserver] = field(default_factory=list)
    recorder: Recorder | None = None
    messages: GroupMessages | None = None
    ask_pin: AskPin | None = None
    """Asks a viewer for the PIN; None turns viewers away who need one."""
    announcements: AnnouncementCalls | None = None
    """Hears what the relay reports of calls that are spoken to."""
    gate: Gate = field(init=False)
    policies: Mapping[str, ServicePolicy] = field(init=False)
    """By service number, `number@domain`."""
    silent: dict[tuple[str, int, str], object] = field(default_factory=dict)
    """Legs (channel, epoch, leg id) the relay reported lost and has not heard since, and who asks after each."""
    sure: Callable[[], Awaitable[None]] = _alone
    """Waits until no other server can have taken our broadcasts over."""
    looking: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Called every few seconds where other servers share the store, to see what they do; may raise OSError."""
    _ended: dict[str, float] = field(default_factory=dict)
    """When channels that are gone since a moment ended, on the event loop's clock."""
    _tasks: Tasks = field(default_factory=lambda: Tasks(_failed))

    def __post_init__(self) -> None:
        self.gate = Gate(self.config.channels, self.ports.channels, self.ports.credentials)
        self.policies = service_policies(self.config)

    def reconfigure(self, config: Config) -> None:
        """Live by a changed configuration from now on; broadcasts that are open keep the policy they began under."""
        self.config = config
        self.gate.config = config.channels
        self.policies = service_policies(config)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the calls; a failure is logged, never swallowed."""
        return self._tasks.spawn(work)

    def group(self, channel: str, epoch: int) -> LiveGroup | None:
        """The open group of this channel and epoch, or None: late reports must not touch a newer broadcast."""
        group = self.open.get(channel)
        return group if group is not None and group.epoch == epoch else None

    def add_viewer(self, group: LiveGroup, viewer: Viewer) -> None:
        """A viewer was answered: it is in."""
        group.viewers[viewer.leg_id] = viewer
        log.info("viewer.added", channel=group.channel, viewer=viewer.number, leg=viewer.leg_id)
        for observer in self.observers:
            observer.viewer_joined(group, viewer)

    def drop_viewer(self, group: LiveGroup, leg_id: str, cause: str) -> Viewer | None:
        """A viewer's call ends: it is out. None if it was out before. Its leg and its BYE are the caller's business."""
        viewer = group.viewers.pop(leg_id, None)
        if viewer is not None:
            log.info("viewer.left", channel=group.channel, viewer=viewer.number, leg=leg_id, cause=cause)
            for observer in self.observers:
                observer.viewer_left(group, viewer, cause)
        return viewer

    def note_end(self, channel: str) -> None:
        """Remember for a moment that this channel was live."""
        now = asyncio.get_running_loop().time()
        self._ended = {name: at for name, at in self._ended.items() if now - at < JUST_ENDED} | {channel: now}

    def just_ended(self, channel: str) -> bool:
        """True while a terminal may still believe that its broadcast runs."""
        at = self._ended.get(channel)
        return at is not None and asyncio.get_running_loop().time() - at < JUST_ENDED

    def claim(self, group: LiveGroup) -> Broadcast:
        """The store's record of a group, its lease renewed."""
        return Broadcast(
            channel=group.channel,
            epoch=group.epoch,
            as_id=self.as_id,
            relay_id=self.link.relay_of((group.channel, group.epoch)),
            state=group.state,
            lease_until=time.time() + LEASE,
            opened_at=group.opened_at,
            media=dump_formats(group.formats),
            leg_id=group.leg_id,
            service=group.service,
        )

    async def store(self, group: LiveGroup) -> bool:
        """Write the group's state down; durable on return. False if another server has it."""
        return await self.ports.broadcasts.update(self.claim(group))

    async def remove_leg(self, group: LiveGroup, leg_id: str) -> None:
        """Take a leg off the relay; if that cannot be told now, reconciliation does it later."""
        try:
            await self.link.call(RemoveLeg(group.channel, group.epoch, leg_id), Done)
        except (RelayUnavailable, ControlError) as error:
            log.debug("relay.leg_not_removed", channel=group.channel, leg=leg_id, error=str(error))

    async def close_on_relay(self, channel: str, epoch: int) -> None:
        """Stop a group's media; if that cannot be told now, reconciliation or the relay's own grace does it."""
        try:
            await self.link.call(CloseGroup(channel, epoch), Done)
        except (RelayUnavailable, ControlError) as error:
            log.debug("relay.group_not_closed", channel=channel, error=str(error))

    async def request_keyframe(self, group: LiveGroup) -> None:
        """Ask the broadcaster for a full picture, within the relay's limits; it is no harm if that fails."""
        try:
            await self.link.call(RequestKeyframe(group.channel, group.epoch), Done)
        except (RelayUnavailable, ControlError) as error:
            log.debug("relay.no_keyframe", channel=group.channel, error=str(error))

    def contact(self, call: IncomingCall, group: LiveGroup) -> str:
        """The Contact of a group: its conference URI (RFC 4579), `sip:NUMBER@HOST:PORT` with our own address.

        With several domains that address alone does not say whose number it is: then the URI ends in `;domain=NAME`,
        which number analysis understands in any request.
        """
        domain = f";domain={domain_of(group.channel)}" if self.config.domains else ""
        return f"{call.contact(group.number, domain)};isfocus"


def _failed(error: BaseException) -> None:
    log.error("broadcast.task_failed", exc_info=error)


def new_leg_id() -> str:
    """An id no other leg has, unguessable."""
    return secrets.token_hex(8)
