"""The engine in C (`csrc/`), on a thread of its own: tables are set from here, packets never enter Python.

Names become handles, and what the thread tells becomes events again. The plain engine is its specification.
"""

from collections.abc import Sequence
from random import Random, SystemRandom
from socket import socket
from typing import TYPE_CHECKING, Any

from media_relay.engine import (
    Datagram,
    EngineEvent,
    EngineLeg,
    GroupSpec,
    Inlet,
    KeyframeNeeded,
    KeyframeSeen,
    LegState,
    LegUnreachable,
    Outlet,
    OutletState,
    PacketsMissing,
    SourceStarted,
    SourceState,
    Totals,
    _native,
)
from protocols.control import MediaKind
from protocols.net import Address
from protocols.rtp.reception import Reception
from protocols.srtp import Profile, Srtp

if TYPE_CHECKING:
    from media_relay.engine._native import InletTuple, OutletTuple, ReceptionTuple

_MEDIA: tuple[MediaKind, ...] = ("audio", "video")
_NUMBER = {kind: number for number, kind in enumerate(_MEDIA)}
_FLOWS = {"open": 0, "trickle": 1, "paused": 2}
_PROFILES: dict[Profile, int] = {"AEAD_AES_128_GCM": 1, "AES_CM_128_HMAC_SHA1_80": 2}
_LAYOUTS = {"": 0, "bandwidth-efficient": 1, "octet-aligned": 2}
_DATAGRAM, _SOURCE_STARTED, _KEYFRAME_SEEN, _KEYFRAME_NEEDED, _UNREACHABLE, _MISSING = range(6)
_NACKED_AT_ONCE = _INJECTED_AT_ONCE = 4096


class _Leg:
    __slots__ = ("handle", "outlets")

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.outlets: set[tuple[MediaKind, int]] = set()


class _Group:
    __slots__ = ("handle", "legs", "received")

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.legs: dict[str, _Leg] = {}
        self.received: dict[MediaKind, tuple[int, int, Reception]] = {}
        """Statistics of each medium's source, under the serial numbers of source and restart."""


class NativeEngine:
    """Implements `media_relay.engine.Engine`. Without `threaded`, `step` moves the packets, for tests."""

    def __init__(self, random: Random | None = None, *, threaded: bool = True) -> None:
        self._random = random or SystemRandom()
        self._native = _native.Engine(threaded=threaded)
        self._sockets: dict[int, socket] = {}
        self._groups: dict[str, _Group] = {}
        self._names: dict[int, tuple[str, str]] = {}
        """Group and leg id by handle."""

    def close(self) -> None:
        """See Engine."""
        self._native.close()

    def fileno(self) -> int:
        """See Engine."""
        return self._native.fileno()

    def unable(self, profile: Profile) -> str | None:
        """See Engine."""
        return _native.unable(_PROFILES[profile])

    def watch(self, sock: socket) -> None:
        """See Engine."""
        self._sockets[sock.fileno()] = sock
        self._native.watch(sock.fileno())

    def unwatch(self, sock: socket) -> None:
        """See Engine."""
        if self._sockets.pop(sock.fileno(), None) is not None:
            self._native.unwatch(sock.fileno())

    def set_group(self, spec: GroupSpec) -> None:
        """See Engine."""
        if spec.group_id not in self._groups:
            handle = self._native.add_group(spec.cache_seconds, spec.cache_bytes, spec.source_bytes_per_second)
            self._groups[spec.group_id] = _Group(handle)
            self._names[handle] = (spec.group_id, "")

    def set_leg(self, leg: EngineLeg, now: float) -> None:
        """See Engine."""
        group = self._groups.get(leg.group_id)
        if group is None:
            return
        known = group.legs.get(leg.leg_id)
        if known is None:
            known = group.legs[leg.leg_id] = _Leg(self._native.add_leg(group.handle))
            self._names[known.handle] = (leg.group_id, leg.leg_id)
        outlets = tuple(self._outlet(outlet, known) for outlet in leg.outlets)
        known.outlets = {(outlet.medium, outlet.encoding) for outlet in leg.outlets}
        self._native.set_leg(known.handle, tuple(map(_inlet, leg.inlets)), outlets, now)

    def remove(self, group_id: str, leg_id: str | None = None) -> None:
        """See Engine."""
        group = self._groups.get(group_id)
        if group is None:
            return
        for name in [leg_id] if leg_id is not None else list(group.legs):
            leg = group.legs.pop(name, None)
            if leg is not None:
                self._native.remove_leg(leg.handle)
                del self._names[leg.handle]
        if leg_id is None:
            self._native.remove_group(group.handle)
            del self._groups[group_id]
            del self._names[group.handle]

    def inject(self, group_id: str, medium: MediaKind, encoding: int, burst: Sequence[bytes], now: float) -> None:
        """See Engine."""
        group = self._groups.get(group_id)
        if group is not None:
            for start in range(0, len(burst), _INJECTED_AT_ONCE):
                some = tuple(burst[start : start + _INJECTED_AT_ONCE])
                self._native.inject(group.handle, _NUMBER[medium], encoding, some, now)

    def resend(self, group_id: str, leg_id: str, medium: MediaKind, lost: Sequence[int], now: float) -> int:
        """See Engine."""
        leg = self._leg(group_id, leg_id)
        return self._native.resend(leg.handle, _NUMBER[medium], tuple(lost[:_NACKED_AT_ONCE]), now) if leg else 0

    def step(self, now: float) -> float | None:
        """See Engine."""
        return self._native.step(now)

    def events(self) -> list[EngineEvent]:
        """See Engine."""
        return [event for told in self._native.events() if (event := self._event(told)) is not None]

    def source(self, group_id: str, medium: MediaKind) -> SourceState | None:
        """See Engine."""
        group = self._groups.get(group_id)
        state = self._native.source(group.handle, _NUMBER[medium]) if group is not None else None
        if group is None or state is None:
            return None
        ssrc, clock_rate, arrived_at, timestamp, offset, received = state
        return SourceState(
            ssrc, clock_rate, arrived_at, timestamp, offset, _reception(group, medium, ssrc, clock_rate, received)
        )

    def outlet(self, group_id: str, leg_id: str, medium: MediaKind) -> OutletState | None:
        """See Engine."""
        leg = self._leg(group_id, leg_id)
        state = self._native.outlet(leg.handle, _NUMBER[medium]) if leg is not None else None
        return OutletState(*state) if state is not None else None

    def leg(self, group_id: str, leg_id: str) -> LegState | None:
        """See Engine."""
        leg = self._leg(group_id, leg_id)
        state = self._native.leg(leg.handle) if leg is not None else None
        if state is None:
            return None
        heard_at, *counted = state
        return LegState(heard_at if heard_at >= 0 else None, *counted)

    def totals(self) -> Totals:
        """See Engine."""
        return Totals(*self._native.totals())

    def _leg(self, group_id: str, leg_id: str) -> _Leg | None:
        group = self._groups.get(group_id)
        return group.legs.get(leg_id) if group is not None else None

    def _outlet(self, outlet: Outlet, leg: _Leg) -> "OutletTuple":
        new = (outlet.medium, outlet.encoding) not in leg.outlets
        first, offset = (self._random.getrandbits(15), self._random.getrandbits(31)) if new else (0, 0)
        return (
            outlet.socket.fileno(),
            *outlet.destination,
            _NUMBER[outlet.medium],
            outlet.encoding,
            outlet.payload_type,
            outlet.ssrc,
            _FLOWS[outlet.flow],
            _LAYOUTS[outlet.layout],
            first,
            offset,
            *_keys(outlet.security),
        )

    def _event(self, told: tuple[Any, ...]) -> EngineEvent | None:
        """None for what concerns a socket, group or leg that is gone."""
        kind = told[0]
        if kind in (_DATAGRAM, _UNREACHABLE):
            sock = self._sockets.get(told[1])
            if sock is None:
                return None
            address = Address(*told[-2:])
            if kind == _DATAGRAM:
                return Datagram(sock, told[2], address)
            return LegUnreachable(sock, address, self._names.get(told[2], ("", ""))[1])
        group_id = self._names.get(told[1], ("", ""))[0]
        if not group_id:
            return None
        if kind == _MISSING:
            return PacketsMissing(group_id, _MEDIA[told[2]], tuple(memoryview(told[3]).cast("H")))
        if kind == _SOURCE_STARTED:
            leg_id = self._names.get(told[2], ("", ""))[1]
            return SourceStarted(group_id, leg_id, _MEDIA[told[3]]) if leg_id else None
        return KeyframeSeen(group_id) if kind == _KEYFRAME_SEEN else KeyframeNeeded(group_id)


def _inlet(inlet: Inlet) -> "InletTuple":
    return (
        inlet.socket.fileno(),
        *inlet.peer,
        _NUMBER[inlet.medium],
        inlet.encoding,
        inlet.forward,
        inlet.codec,
        inlet.clock_rate,
        inlet.payload_type,
        _LAYOUTS[inlet.layout],
        inlet.parameter_sets,
        *_keys(inlet.security),
    )


def _keys(security: Srtp | None) -> tuple[int, bytes]:
    return (0, b"") if security is None else (_PROFILES[security.profile], security.master_key_and_salt)


def _reception(group: _Group, medium: MediaKind, ssrc: int, clock_rate: int, received: "ReceptionTuple") -> Reception:
    serial, begun, known, base, highest, packets, jitter = received
    before = group.received.get(medium)
    same = before is not None and before[0] == serial
    reception = before[2] if before is not None and same else Reception(ssrc, clock_rate)
    restarted = before is not None and same and before[1] != begun
    reception.measured((base, highest) if known else None, packets, jitter, restarted=restarted)
    group.received[medium] = serial, begun, reception
    return reception
