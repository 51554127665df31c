"""Groups: one per live broadcaster, with its source leg, its viewers and the ports they share.

An announcement is a group of one leg, unknown to the engine: `media_relay.announcements` makes what it hears.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from itertools import count
from math import inf

from media_relay.engine import Engine, GroupSpec
from media_relay.keyframes import KeyframeRequests
from media_relay.legs import (
    Leg,
    LegMedium,
    RandomBytes,
    Role,
    needs_own_port,
    new_medium,
    renegotiate,
    rtcp_of,
    sendable,
)
from media_relay.metrics import LIMITED
from media_relay.ports import MediaPort, Ports
from media_relay.reports import final_report, pages
from media_relay.sockets import PortsExhausted
from protocols.control import (
    ControlError,
    Event,
    GroupClosed,
    KeptMedia,
    LegInfo,
    LegJoined,
    LegPlaced,
    LegReport,
    LegSpec,
    MediaKind,
    MediaSpec,
)
from protocols.net import Address, is_host
from protocols.rtp.rtcp import SenderReport
from provisioning.config import RelayConfig

MAX_ID = 256
"""Characters of an id; they come from the AS, but memory is ours."""

FIRST_REPORT = 0.1
"""Seconds after the join until the first RTCP report: a player needs one to put sound and picture together."""


class Group:
    """One broadcast, or one announcement: everything with this id and epoch. Owned by the AS that opened it."""

    def __init__(
        self, group_id: str, epoch: int, owner: str, config: RelayConfig, *, announcement: bool = False
    ) -> None:
        self.group_id = group_id
        self.epoch = epoch
        self.owner = owner
        self.announcement = announcement
        self.legs: dict[str, Leg] = {}
        self.source: Leg | None = None
        self.orphaned_at: float | None = None
        """When its owner was first seen to be gone."""
        self.shared: dict[MediaKind, MediaPort] = {}
        self.source_reports: dict[MediaKind, SenderReport] = {}
        """The source's last sender reports: its own clock, by which sound and picture belong together."""
        self.keyframes = KeyframeRequests(config.keyframe_interval_min, config.viewer_keyframe_interval)


class Groups:
    """All groups of the relay: puts legs in, takes them out, keeps engine and ports in step."""

    def __init__(
        self,
        config: RelayConfig,
        engine: Engine,
        emit: Callable[[str, Event], None],
        random_bytes: RandomBytes,
    ) -> None:
        self.config = config
        self.engine = engine
        self.ports = Ports(config, engine)
        self.by_id: dict[str, Group] = {}
        self.wishing: set[Group] = set()
        """Those that may want a keyframe."""
        self._announced: dict[str, Group] = {}
        """Announcements by the id of their leg."""
        self._emit = emit
        self._random_bytes = random_bytes
        self._order = count()
        self._due: list[tuple[float, int, Leg]] = []

    def open(self, group_id: str, epoch: int, owner: str, spec: LegSpec, now: float, *, role: Role = "source") -> Group:
        """A new group with its first leg, a source or one to announce to; ControlError when there is no room."""
        config, announcement = self.config, role == "announcement"
        limit = config.max_announcements if announcement else config.max_groups
        held = len(self._announced) if announcement else len(self.by_id) - len(self._announced)
        if held >= limit:
            LIMITED.labels("relay.max_announcements" if announcement else "relay.max_groups").inc()
            raise ControlError("limit", f"{limit} {'announcements' if announcement else 'groups'} are open")
        if not 0 < len(group_id) <= MAX_ID or (announcement and spec.leg_id in self._announced):
            raise ControlError("bad-request", "group id empty or too long, or leg id in use")
        group = Group(group_id, epoch, owner, config, announcement=announcement)
        if announcement:
            self._announced[spec.leg_id] = group
        else:
            self.engine.set_group(
                GroupSpec(group_id, config.cache_seconds, config.cache_bytes, config.source_bitrate_max / 8)
            )
        self.by_id[group_id] = group
        try:
            self.put(group, spec, role, now)
        except ControlError:
            self.close(group)
            raise
        return group

    def _room_for_a_leg(self, group: Group) -> None:
        if len(group.legs) >= self.config.max_legs_per_group:
            LIMITED.labels("relay.max_legs_per_group").inc()
            raise ControlError("limit", f"{self.config.max_legs_per_group} legs in group {group.group_id}")

    def put(self, group: Group, spec: LegSpec, role: Role, now: float) -> LegInfo:
        """Add the leg, or bring it to what was negotiated anew; the same again changes nothing."""
        _check(spec)
        self._check_security(spec)
        kept = {wish.media.kind: wish for wish in spec.kept}
        spec = _as_seen_from(self.config.bind, replace(spec, kept=()))
        leg = group.legs.get(spec.leg_id)
        if group.announcement != (role == "announcement") or (group.announcement and group.legs and leg is None):
            raise ControlError("bad-request", f"group {group.group_id} is not for a {role} like this")
        if leg is not None and leg.role == role and leg.spec == spec:
            return leg.info()
        fresh = leg is None
        if leg is None:
            if role == "sink":
                self._room_for_a_leg(group)
            leg = Leg(group.group_id, group.epoch, spec, role, now)
        elif leg.role != role:
            raise ControlError("bad-request", f"leg {spec.leg_id} is a {leg.role}")
        before, leg.spec = leg.spec, spec
        media: dict[MediaKind, LegMedium] = {}
        try:
            for medium_spec in spec.media:
                media[medium_spec.kind] = self._medium(group, leg, medium_spec, before, now, kept.get(medium_spec.kind))
        except PortsExhausted as error:
            leg.spec = before
            self._release(medium for kind, medium in media.items() if leg.media.get(kind) is not medium)
            raise ControlError("limit", "no media port left") from error
        left = [medium for kind, medium in leg.media.items() if media.get(kind) is not medium]
        leg.media = media
        if fresh:
            leg.told = leg.places()  # by signalling, or by whoever asked: nothing that would be news
            group.legs[leg.leg_id] = leg
        if role == "source" and group.source is not leg:
            previous, group.source = group.source, leg
            if previous is not None:
                group.keyframes.source_replaced()
                group.keyframes.want()
                self.wishing.add(group)
                self.remove(group, previous.leg_id)
        self.sync(leg, now)
        self._release(left)  # only now: the engine may have been sending over its sockets
        return leg.info()

    def adopt(self, group: Group, leg_id: str, now: float) -> None:
        """A leg of this id that is announced to becomes a viewer of the broadcast, its ports and latches as they are.

        Its streams get new names: their numbers have nothing to do with those of the prompts.
        """
        alone = self._announced.get(leg_id)
        if alone is None or alone.owner != group.owner or group.announcement or leg_id not in alone.legs:
            return
        self._room_for_a_leg(group)
        leg = alone.legs.pop(leg_id)
        self.close(alone)
        leg.group_id, leg.epoch, leg.role = group.group_id, group.epoch, "sink"
        for medium in leg.media.values():
            medium.port.group_id = group.group_id
            medium.ssrc = self.new_ssrc()
        group.legs[leg_id] = leg
        self.sync(leg, now)

    def remove(self, group: Group, leg_id: str) -> None:
        """The leg's call is over; the owner is told what it did."""
        if leg_id in group.legs:
            self._report(group, [self._take_out(group, leg_id)])

    def close(self, group: Group, cause: str | None = None) -> None:
        """Stop all media; with a cause the owner is told, as it did not ask for it."""
        self._report(group, [self._take_out(group, leg_id) for leg_id in list(group.legs)])
        self.engine.remove(group.group_id)
        for port in group.shared.values():
            self.ports.close(port)
        del self.by_id[group.group_id]
        self.wishing.discard(group)
        if group.announcement:
            self._announced = {leg_id: other for leg_id, other in self._announced.items() if other is not group}
        if cause is not None:
            self._emit(group.owner, GroupClosed(group.group_id, group.epoch, cause))

    def sync(self, leg: Leg, now: float) -> None:
        """Tell the engine what changed about a leg, and look after it soon."""
        if not leg.removed:
            self.visit_at(leg, now)
            self.engine.set_leg(leg.for_engine(now), now)

    def heard(self, leg: Leg, now: float) -> None:
        """Something authentic came from the leg; its first sign of life or last proof makes it joined."""
        leg.heard_at = now
        if not leg.joined and (leg.all_checked or not leg.ice):
            leg.joined = True
            leg.report_at = now + FIRST_REPORT
            self.visit_at(leg, leg.report_at)
            self.emit(leg, LegJoined(leg.group_id, leg.epoch, leg.leg_id))

    def tell_places(self, leg: Leg) -> None:
        """Report where the leg's peer is, if that is news: another relay can go on from there should this one die."""
        if not leg.removed and (places := leg.places()) != leg.told:
            leg.told = places
            self.emit(leg, LegPlaced(leg.group_id, leg.epoch, leg.leg_id, places))

    def emit(self, leg: Leg, event: Event) -> None:
        """Report to the AS that owns the leg's group."""
        group = self.by_id.get(leg.group_id)
        if group is not None and not leg.removed:
            self._emit(group.owner, event)

    def new_ssrc(self) -> int:
        """A name for a stream that nobody can guess."""
        return int.from_bytes(self._random_bytes(4), "big")

    def visit_at(self, leg: Leg, when: float) -> None:
        """Have the leg looked after at this time, instead of any time set before."""
        leg.visit = next(self._order)
        heapq.heappush(self._due, (when, leg.visit, leg))

    def next_visit(self) -> float:
        """When the next leg's time comes."""
        return self._due[0][0] if self._due else inf

    def due(self, now: float) -> Iterator[Leg]:
        """Legs whose time has come, one by one; each is to be given its next visit before the next is asked for."""
        while self._due and self._due[0][0] <= now:
            _, visit, leg = heapq.heappop(self._due)
            if not leg.removed and leg.visit == visit:
                yield leg

    def _medium(
        self, group: Group, leg: Leg, spec: MediaSpec, before: LegSpec, now: float, kept: KeptMedia | None
    ) -> LegMedium:
        """The medium as negotiated: the one that is there where its sockets fit, else a new one."""
        own = needs_own_port(leg.role, spec, leg.spec.client_address) or self._taken(group, leg, spec)
        old = leg.media.get(spec.kind)
        fits = old is not None and (not (old.port.shared and own) or not sendable(spec.rtp))
        if old is not None and fits and old.spec.ice == spec.ice:
            moved = before.client_address != leg.spec.client_address
            renegotiate(old, spec, moved=moved, config=self.config, random=self._random_bytes, now=now, kept=kept)
            return old
        # What one leg had alone it gets alone, what many shared none of them: the others want it too.
        shared = not own and (kept is None or kept.media.shared)
        wished = kept.media.rtp.port if kept is not None and kept.media.shared == shared else None
        port = group.shared.get(spec.kind) if shared else None
        if port is None:
            port = self.ports.open(spec.kind, group.group_id, shared=shared, wished=wished)
        if shared:
            group.shared[spec.kind] = port
        return new_medium(leg, spec, port, self.config, self._random_bytes, now, kept)

    def _taken(self, group: Group, leg: Leg, spec: MediaSpec) -> bool:
        """True where another leg on the shared port lives at this address, or says so: two ports keep them apart."""
        others = (other.media.get(spec.kind) for other in group.legs.values() if other is not leg)
        shared = (other for other in others if other is not None and other.port.shared)
        return any(other.peer == spec.rtp or other.rtcp_peer == rtcp_of(spec) for other in shared)

    def _check_security(self, spec: LegSpec) -> None:
        both = (keys for media in spec.media for keys in (media.send_security, media.receive_security))
        for reason in map(self.engine.unable, {keys.profile for keys in both if keys is not None}):
            if reason is not None:
                raise ControlError("unsupported", reason)

    def _take_out(self, group: Group, leg_id: str) -> LegReport:
        leg = group.legs.pop(leg_id)
        report = final_report(self.engine, leg)
        leg.removed = True
        self.engine.remove(group.group_id, leg_id)
        self._release(leg.media.values())
        leg.media.clear()  # they hold each other
        group.keyframes.forget(leg_id)
        if group.source is leg:
            group.source = None
        return report

    def _report(self, group: Group, reports: list[LegReport]) -> None:
        for page in pages(group.group_id, group.epoch, reports):
            self._emit(group.owner, page)

    def _release(self, media: Iterable[LegMedium]) -> None:
        for medium in list(media):
            medium.port.forget(medium)
            if not medium.port.shared:
                self.ports.close(medium.port)


def _as_seen_from(bind: str, spec: LegSpec) -> LegSpec:
    """The leg with its addresses spelt as this relay's sockets spell them, so that they compare equal."""
    six = ip_address(bind).version == 6

    def spelt(address: Address) -> Address:
        return Address(_spelt(address.host, six), address.port)

    media = tuple(replace(medium, rtp=spelt(medium.rtp), rtcp=spelt(medium.rtcp)) for medium in spec.media)
    return replace(spec, client_address=_spelt(spec.client_address, six), media=media)


def _spelt(host: str, six: bool) -> str:
    """Canonical text of an address; an IPv4 one as an IPv6 socket knows it (RFC 4291 section 2.5.5.2)."""
    address = ip_address(host)
    return f"::ffff:{address}" if six and address.version == 4 else str(address)


def _check(spec: LegSpec) -> None:
    kinds = [media.kind for media in spec.media]
    if not 0 < len(spec.leg_id) <= MAX_ID or not kinds or len(set(kinds)) != len(kinds):
        raise ControlError("bad-request", "a leg needs an id and one or two different media")
    if not is_host(spec.client_address):
        raise ControlError("bad-request", "client address is not numeric")
    for media in spec.media:
        if not (is_host(media.rtp.host) and is_host(media.rtcp.host)):
            raise ControlError("bad-request", f"{media.kind}: not a numeric address")
        if not (0 <= media.payload_type < 128 and 1000 <= media.clock_rate <= 384_000):
            raise ControlError("bad-request", f"{media.kind}: payload type or clock rate out of range")
        if not (0 <= media.rtp.port < 65536 and 0 <= media.rtcp.port < 65536):
            raise ControlError("bad-request", f"{media.kind}: no such port")
    for wish in spec.kept:
        addresses = () if wish.peer is None else (wish.peer.rtp, wish.peer.rtcp or wish.peer.rtp)
        if not all(is_host(at.host) and 0 < at.port < 65536 for at in addresses):
            raise ControlError("bad-request", f"{wish.media.kind}: no address a peer can have been at")
