"""The relay without its sockets to the AS: commands in, events out, ownership and epochs between them.

A group belongs to the AS that opened it. If that AS is gone, media goes on for `orphan_grace`, in which an AS that
holds the group's lease may claim it; then the group closes.
"""

import os
import time
from collections.abc import Callable
from math import inf

from media_relay.announcements import Announcements
from media_relay.engine import Engine
from media_relay.feedback import Feedback
from media_relay.groups import Group, Groups
from media_relay.legs import Leg, RandomBytes
from media_relay.liveness import Liveness
from media_relay.traffic import Traffic
from protocols.control import (
    PAGE_BYTES,
    PAGE_LEGS,
    AddViewer,
    ClaimGroup,
    CloseGroup,
    Command,
    ControlError,
    Done,
    Event,
    LegPage,
    LegRow,
    ListLegs,
    OpenAnnouncement,
    OpenGroup,
    PlayPrompt,
    RemoveLeg,
    ReplaceSource,
    Reply,
    RequestKeyframe,
    StopPrompt,
    UpdateLeg,
)
from protocols.control_json import encode
from provisioning.config import RelayConfig

Emit = Callable[[str, Event], None]
Connected = Callable[[str], bool]
OWNERS_INTERVAL = 0.5
"""Most seconds between two looks for groups whose server is gone."""
WISHES_INTERVAL = 0.1
"""Seconds between two looks at wishes for keyframes, while there are any."""
_PAGE_MARGIN = 256
_CNAME_BYTES = 9


class Relay:
    """All groups and what acts on them. `emit` gets (AS id, event), `connected` tells whether an AS is there."""

    def __init__(
        self,
        config: RelayConfig,
        engine: Engine,
        emit: Emit,
        connected: Connected,
        *,
        random_bytes: RandomBytes = os.urandom,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self.engine = engine
        self._connected = connected
        self.groups = Groups(config, engine, emit, random_bytes)
        self._feedback = Feedback(self.groups, wall, random_bytes(_CNAME_BYTES).hex())
        self._liveness = Liveness(self.groups)
        self._announcements = Announcements(self.groups)
        self._traffic = Traffic(self.groups, self._feedback, self._liveness, self._announcements)
        self._visit_interval = self._liveness.interval()
        self._owners_at = self._wishes_at = 0.0

    def execute(self, as_id: str, command: Command, now: float) -> Reply:
        """Do what an AS asks; ControlError when refused."""
        self._traffic.handle(now)  # what came before the command is not its answer
        reply = self._execute(as_id, command, now)
        self._traffic.handle(now)
        return reply

    def step(self, now: float) -> float | None:
        """Move packets and act on what else arrived; when the engine wants to be called again at the latest."""
        due = self.engine.step(now)
        self._traffic.handle(now)
        return min((at for at in (due, self._announcements.step(now)) if at is not None), default=None)

    def tick(self, now: float) -> None:
        """Look after legs whose time has come, wishes for keyframes, and orphans."""
        self._traffic.handle(now)  # a keyframe may have come that nobody was woken for
        for leg in self.groups.due(now):
            self.groups.visit_at(leg, now + self._visit_interval)  # whatever fails below
            self._liveness.visit(leg, now)
            self._feedback.report(leg, now)
            self.groups.tell_places(leg)
            quiet_until = self._liveness.quiet_until(leg, now)
            if leg.joined and not leg.cut:
                quiet_until = min(quiet_until, leg.report_at)
            self.groups.visit_at(leg, quiet_until)
        for group in list(self.groups.wishing):
            self._feedback.ask_keyframe(group, now)
        if now >= self._owners_at:
            for group in list(self.groups.by_id.values()):
                self._look_for_owner(group, now)
            self._owners_at = now + min(OWNERS_INTERVAL, self._config.orphan_grace / 10)
        self._wishes_at = now + WISHES_INTERVAL

    def next_tick(self) -> float:
        """When `tick` has something to do."""
        return min(self._wishes_at if self.groups.wishing else inf, self._owners_at, self.groups.next_visit())

    def reconfigure(self, config: RelayConfig) -> None:
        """Live by changed timers, limits and latching from now on; what is per group counts for the next one."""
        self._config = self.groups.config = config
        self._liveness.reconfigure(config)
        self._visit_interval = self._liveness.interval()
        for group in self.groups.by_id.values():
            for leg in group.legs.values():
                self.groups.visit_at(leg, 0.0)  # its time may run out sooner now

    def close(self) -> None:
        """Close every group; nobody is told."""
        for group in list(self.groups.by_id.values()):
            self.groups.close(group)

    def _execute(self, as_id: str, command: Command, now: float) -> Reply:
        match command:
            case OpenGroup():
                return self._open(as_id, command, now)
            case ReplaceSource(group_id, epoch, spec):
                return self.groups.put(self._owned(as_id, group_id, epoch), spec, "source", now)
            case AddViewer(group_id, epoch, spec):
                group = self._owned(as_id, group_id, epoch)
                self.groups.adopt(group, spec.leg_id, now)
                return self.groups.put(group, spec, "sink", now)
            case OpenAnnouncement(group_id, epoch, spec):
                if group_id in self.groups.by_id:
                    return self.groups.put(self._owned(as_id, group_id, epoch), spec, "announcement", now)
                group = self.groups.open(group_id, epoch, as_id, spec, now, role="announcement")
                return group.legs[spec.leg_id].info()
            case PlayPrompt(group_id, epoch, leg_id):
                self._announcements.play(self._announced(as_id, group_id, epoch, leg_id), command, now)
            case StopPrompt(group_id, epoch, leg_id):
                self._announcements.stop(self._announced(as_id, group_id, epoch, leg_id))
            case UpdateLeg(group_id, epoch, spec):
                group = self._owned(as_id, group_id, epoch)
                leg = group.legs.get(spec.leg_id)
                if leg is None:
                    raise ControlError("unknown-leg", f"no leg {spec.leg_id} in {group_id}")
                return self.groups.put(group, spec, leg.role, now)
            case RemoveLeg(group_id, epoch, leg_id):
                if group_id in self.groups.by_id:
                    self.groups.remove(self._owned(as_id, group_id, epoch), leg_id)
            case CloseGroup(group_id, epoch):
                if group_id in self.groups.by_id:
                    self.groups.close(self._owned(as_id, group_id, epoch))
            case RequestKeyframe(group_id, epoch):
                group = self._owned(as_id, group_id, epoch)
                group.keyframes.want()
                self._feedback.ask_keyframe(group, now)
            case ClaimGroup():
                self._claim(as_id, command)
            case ListLegs(after, limit):
                return self._list(as_id, after, limit, now)
            case _:
                raise ControlError("unsupported", f"{type(command).__name__} is no command here")
        return Done()

    def _open(self, as_id: str, command: OpenGroup, now: float) -> Reply:
        group = self.groups.by_id.get(command.group_id)
        if group is not None:
            if group.owner != as_id and self._connected(group.owner):
                raise ControlError("not-owner", f"group {group.group_id} belongs to another server")
            if command.epoch < group.epoch:
                raise ControlError("stale-epoch", f"group {group.group_id} is at epoch {group.epoch}")
            if command.epoch == group.epoch and group.owner == as_id:
                if group.source is None or group.source.leg_id != command.leg.leg_id:
                    raise ControlError("bad-request", f"group {group.group_id} is open with another source")
                return self.groups.put(group, command.leg, "source", now)
            self.groups.close(group)
        group = self.groups.open(command.group_id, command.epoch, as_id, command.leg, now)
        return group.legs[command.leg.leg_id].info()

    def _claim(self, as_id: str, claim: ClaimGroup) -> None:
        group = self._current(claim.group_id, claim.epoch)
        if group.owner not in (as_id, claim.from_as) and self._connected(group.owner):
            raise ControlError("not-owner", f"the owner of group {claim.group_id} is there")
        group.owner = as_id
        group.orphaned_at = None

    def _owned(self, as_id: str, group_id: str, epoch: int) -> Group:
        group = self._current(group_id, epoch)
        if group.owner != as_id:
            raise ControlError("not-owner", f"group {group_id} belongs to another server")
        return group

    def _announced(self, as_id: str, group_id: str, epoch: int, leg_id: str) -> Leg:
        leg = self._owned(as_id, group_id, epoch).legs.get(leg_id)
        if leg is None or leg.role != "announcement":
            raise ControlError("unknown-leg", f"no leg {leg_id} to announce to in {group_id}")
        return leg

    def _current(self, group_id: str, epoch: int) -> Group:
        group = self.groups.by_id.get(group_id)
        if group is None:
            raise ControlError("unknown-group", f"no group {group_id}")
        if epoch != group.epoch:
            raise ControlError("stale-epoch", f"group {group_id} is at epoch {group.epoch}, not {epoch}")
        return group

    def _list(self, as_id: str, after: tuple[str, str], limit: int, now: float) -> LegPage:
        """The caller's legs after the cursor, as many as a page holds."""
        limit = max(1, min(limit, PAGE_LEGS))
        rows: list[LegRow] = []
        size = _PAGE_MARGIN
        for group_id in sorted(g.group_id for g in self.groups.by_id.values() if g.owner == as_id):
            if group_id < after[0]:
                continue
            group = self.groups.by_id[group_id]
            for leg_id in sorted(group.legs):
                if (group_id, leg_id) <= after:
                    continue
                row = self._row(group, leg_id, now)
                size += len(encode(LegPage((row,), None))[1])
                if len(rows) == limit or (rows and size > PAGE_BYTES):
                    return LegPage(tuple(rows), (rows[-1].group_id, rows[-1].leg_id))
                rows.append(row)
        return LegPage(tuple(rows), None)

    def _row(self, group: Group, leg_id: str, now: float) -> LegRow:
        leg = group.legs[leg_id]
        heard_at = self._liveness.heard_at(leg)
        state = self.engine.leg(group.group_id, leg_id)
        packets, octets = (state.packets, state.octets) if state is not None else self._announcements.sent(leg)
        if leg.role == "source" and state is not None:
            packets = state.received
        return leg.row(None if heard_at is None else now - heard_at, packets, octets)

    def _look_for_owner(self, group: Group, now: float) -> None:
        if self._connected(group.owner):
            group.orphaned_at = None
        elif group.orphaned_at is None:
            group.orphaned_at = now
        elif now - group.orphaned_at > self._config.orphan_grace:
            self.groups.close(group, "orphaned")
