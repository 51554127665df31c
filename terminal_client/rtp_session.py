"""One m-line on the wire: an even RTP port and the RTCP port above it, our SSRC, reports, feedback, and the join.

RTP and RTCP after RFC 3550 and 4585, rtcp-mux after RFC 5761. The join is an authenticated STUN check from the RTP
socket (protocols.join), repeated as consent (RFC 7675) as long as the session lives. Media is accepted from the
negotiated address only. Everything here runs on the event loop; nothing blocks.
"""

import asyncio
import errno
import random
import secrets
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from protocols.join import (
    Checker,
    CheckTiming,
    ConsentLost,
    IceCredentials,
    Joined,
    JoinFailed,
    new_credentials,
)
from protocols.net import Address
from protocols.rtp import rtcp
from protocols.rtp.classify import classify
from protocols.rtp.packet import RtpError, RtpPacket
from protocols.rtp.reception import Reception, round_trip
from protocols.rtp.rtcp import (
    CNAME,
    Fir,
    Goodbye,
    Nack,
    Pli,
    ReceiverReport,
    ReportBlock,
    SenderReport,
    SourceDescription,
)
from terminal_client.report import StreamReport
from terminal_client.streams import JoinError, LocalStream, Medium, RemoteStream
from terminal_client.video_buffer import Feedback

FIRST_REPORT: Final = 0.5
REPORT_INTERVAL: Final = 2.5
PACE_STEP: Final = 0.002
PACE_BURST: Final = 4
"""Packets that go out at once; the rest of a picture follows in steps, so that no queue on the way overflows."""
HISTORY: Final = 1024
"""Packets kept for NACK."""
RESEND_BURST: Final = 64
"""Packets that may be asked for again at once; the allowance comes back at RESEND_RATE a second. Requests are easily
forged, and each octet of them could cost hundreds of our uplink."""
RESEND_RATE: Final = 200.0
RECEIVE_BUFFER: Final = 1 << 20
BIND_ATTEMPTS: Final = 50
_TAKEN: Final = (errno.EADDRINUSE, errno.EACCES)


@dataclass(frozen=True, slots=True)
class SessionUser:
    """Whom a session tells what it receives; all called on the event loop."""

    packet: Callable[[RtpPacket, float], None]
    keyframe_wanted: Callable[[], None]
    consent_lost: Callable[[], None]


class RtpSession:
    """RTP and RTCP of one medium between this terminal and one remote address."""

    def __init__(self, medium: Medium, clock_rate: int, user: SessionUser) -> None:
        self.ssrc = secrets.randbits(32)
        self.last_received_at: float | None = None
        self.packets_sent = self.bytes_sent = self.packets_received = self.bytes_received = 0
        self._medium = medium
        self._clock_rate = clock_rate
        self._user = user
        self._credentials: IceCredentials = new_credentials(secrets.token_bytes)
        self._loop = asyncio.get_running_loop()
        self._rtp: asyncio.DatagramTransport | None = None
        self._rtcp: asyncio.DatagramTransport | None = None
        self._remote: RemoteStream | None = None
        self._checker: Checker | None = None
        self._check_timer: asyncio.TimerHandle | None = None
        self._joined: asyncio.Future[None] | None = None
        self._consent_timeout = CheckTiming().consent_timeout
        self._sequence = secrets.randbits(15)
        self._timestamp_offset = secrets.randbits(32)
        self._last_sent: tuple[int, float] | None = None
        self._history: OrderedDict[int, bytes] = OrderedDict()
        self._pace: deque[bytes] = deque()
        self._pace_timer: asyncio.TimerHandle | None = None
        self._pace_count = 1
        self._reception: Reception | None = None
        self._report_timer: asyncio.TimerHandle | None = None
        self._reported_packets = 0
        self._fir_number = 0
        self._last_fir: int | None = None
        self._cname = secrets.token_hex(8).encode()
        self._retransmitted = self._nacks_sent = 0
        self._resends, self._resent_at = float(RESEND_BURST), 0.0
        self._round_trip: float | None = None

    async def open(self, host: str) -> LocalStream:
        """Bind an even port and the next one. Raises OSError if no pair is free."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for _ in range(BIND_ATTEMPTS):
            pair = _bind_pair(family, host)
            if pair is not None:
                break
        else:
            raise OSError(f"no free pair of UDP ports on {host}")
        self._rtp, _ = await self._loop.create_datagram_endpoint(lambda: _Port(self._datagram), sock=pair[0])
        self._rtcp, _ = await self._loop.create_datagram_endpoint(lambda: _Port(self._datagram), sock=pair[1])
        port = self._rtp.get_extra_info("sockname")[1]
        return LocalStream(port, port + 1, self._credentials.ufrag, self._credentials.password)

    def connect(self, remote: RemoteStream) -> None:
        """Media goes to and comes from this address from now on; called again when the far end moves."""
        before, self._remote = self._remote, remote
        if self._checker is not None and before is not None and before.join != remote.join:
            self._checker.stop()
            self._checker = self._new_checker(remote)  # moved: it must see us there before it sends anything
            self._check()
        if self._report_timer is None:
            self._report_timer = self._loop.call_later(FIRST_REPORT, self._report)

    async def join(self, timeout: float, consent_timeout: float) -> None:
        """Prove ourselves to the far end by an authenticated check. Raises JoinError; returns at once without ICE.

        Then the check is repeated as consent, until none was answered for `consent_timeout` seconds.
        """
        remote = self._remote
        if remote is None or remote.ufrag is None or remote.password is None:
            return
        self._consent_timeout = consent_timeout
        self._checker = self._new_checker(remote)
        self._joined = self._loop.create_future()
        self._check()
        try:
            await asyncio.wait_for(self._joined, timeout)
        except TimeoutError:
            if self._checker is not None:
                self._checker.stop()
            raise JoinError(f"{self._medium}: no answer from {remote.address} within {timeout:g} s") from None

    def send_frame(self, payloads: Sequence[bytes], clock: int, spread: float = 0.0, *, marker: bool = True) -> None:
        """Send what belongs to one instant; `clock` is its time in clock units, `spread` seconds to take for it."""
        remote = self._remote
        if remote is None:
            return
        timestamp = (self._timestamp_offset + clock) & 0xFFFFFFFF
        self._last_sent = timestamp, time.monotonic()
        for index, payload in enumerate(payloads):
            last = marker and index == len(payloads) - 1
            self._pace.append(self._packet(remote.payload_type, timestamp, payload, marker=last))
        steps = max(1, int(spread / PACE_STEP))
        self._pace_count = max(PACE_BURST, -(-len(self._pace) // steps))
        if self._pace_timer is None:
            self._send_paced()

    def send_event(self, payload: bytes, clock: int, *, first: bool) -> bool:
        """Send one packet of the telephone event that began at `clock`; False if the far end knows no such events."""
        remote = self._remote
        if remote is None or remote.keys is None:
            return False
        timestamp = (self._timestamp_offset + clock) & 0xFFFFFFFF
        if first:
            self._last_sent = timestamp, time.monotonic()
        self._send(self._packet(remote.keys, timestamp, payload, marker=first))
        return True

    def ask(self, wish: Feedback) -> None:
        """Tell the sender which packets and whether a keyframe we need (RFC 4585, 5104)."""
        if self._reception is None:
            return
        media = self._reception.ssrc
        packets: list[rtcp.RtcpPacket] = []
        if wish.nack:
            packets.append(Nack(self.ssrc, media, wish.nack))
            self._nacks_sent += len(wish.nack)
        if wish.pli:
            packets.append(Pli(self.ssrc, media))
        if wish.fir:
            packets.append(Fir(self.ssrc, ((media, self._fir_number),)))
            self._fir_number = (self._fir_number + 1) & 0xFF
        if packets:
            self._send_rtcp([ReceiverReport(self.ssrc), *packets])

    def report(self) -> StreamReport:
        """This m-line's numbers so far."""
        reception = self._reception
        return StreamReport(
            codec="" if self._remote is None else self._remote.codec,
            packets_sent=self.packets_sent,
            bytes_sent=self.bytes_sent,
            packets_received=self.packets_received,
            bytes_received=self.bytes_received,
            packets_lost=0 if reception is None else max(0, reception.lost),
            jitter_ms=0.0 if reception is None else reception.jitter * 1000 / self._clock_rate,
            retransmitted=self._retransmitted,
            nacks_sent=self._nacks_sent,
            round_trip_ms=None if self._round_trip is None else self._round_trip * 1000,
        )

    def close(self) -> None:
        """Say goodbye and free the ports. A join still under way fails."""
        while self._pace:
            self._send(self._pace.popleft())
        if self._remote is not None and self._rtp is not None:
            self._send_rtcp([self._own_report(), Goodbye((self.ssrc,))])
        for timer in (self._check_timer, self._report_timer, self._pace_timer):
            if timer is not None:
                timer.cancel()
        if self._joined is not None and not self._joined.done():
            self._joined.set_exception(JoinError(f"{self._medium}: closed before the join"))
        for transport in (self._rtp, self._rtcp):
            if transport is not None:
                transport.close()
        self._remote = None

    def _packet(self, payload_type: int, timestamp: int, payload: bytes, *, marker: bool) -> bytes:
        """The next packet of our stream, kept for a while."""
        data = RtpPacket(payload_type, self._sequence, timestamp, self.ssrc, payload, marker).serialise()
        self._history[self._sequence] = data
        self._sequence = (self._sequence + 1) & 0xFFFF
        self.packets_sent += 1
        self.bytes_sent += len(payload)
        while len(self._history) > HISTORY:
            self._history.popitem(last=False)
        return data

    def _datagram(self, data: bytes, source: Address) -> None:
        now = time.monotonic()
        remote = self._remote
        match classify(data):
            case "stun" if self._checker is not None:
                self._checker.receive(data, source, now)
                self._check()
            case "rtp" if remote is not None and source == remote.address:
                self._received_rtp(data, remote, now)
            case "rtcp" if remote is not None and source in (remote.address, remote.rtcp):
                self._received_rtcp(data, now)

    def _received_rtp(self, data: bytes, remote: RemoteStream, now: float) -> None:
        try:
            packet = RtpPacket.parse(data)
        except RtpError:
            return
        if packet.payload_type not in (remote.payload_type, remote.keys):
            return
        if self._reception is None or self._reception.ssrc != packet.ssrc:
            self._reception = Reception(packet.ssrc, self._clock_rate)
        self._reception.received(packet.sequence, packet.timestamp, now)
        self.last_received_at = now
        self.packets_received += 1
        self.bytes_received += len(packet.payload)
        if packet.payload_type == remote.payload_type:  # a key pressed there only counts as received
            self._user.packet(packet, now)

    def _received_rtcp(self, data: bytes, now: float) -> None:
        try:
            packets = rtcp.parse_compound(data)
        except rtcp.RtcpError:
            return
        for packet in packets:
            match packet:
                case SenderReport():
                    if self._reception is not None and packet.ssrc == self._reception.ssrc:
                        self._reception.sender_report(packet, now)
                    self._measure(packet.reports)
                case ReceiverReport():
                    self._measure(packet.reports)
                case Pli():
                    self._user.keyframe_wanted()
                case Fir(entries=entries):
                    numbers = [number for ssrc, number in entries if ssrc == self.ssrc]
                    if numbers and numbers[-1] != self._last_fir:  # a repetition of one request keeps its number
                        self._last_fir = numbers[-1]
                        self._user.keyframe_wanted()
                case Nack(sequences=sequences):
                    self._retransmit(sequences, now)

    def _measure(self, blocks: Sequence[ReportBlock]) -> None:
        for block in blocks:
            if block.ssrc == self.ssrc:
                self._round_trip = round_trip(block, rtcp.middle_ntp(rtcp.ntp_time(time.time())))

    def _retransmit(self, sequences: Sequence[int], now: float) -> None:
        self._resends = min(RESEND_BURST, self._resends + (now - self._resent_at) * RESEND_RATE)
        self._resent_at = now
        for sequence in sequences:
            if self._resends < 1:
                break
            self._resends -= 1
            data = self._history.get(sequence)
            if data is not None:
                self._retransmitted += 1
                self._send(data)

    def _send_paced(self) -> None:
        self._pace_timer = None
        for _ in range(min(self._pace_count, len(self._pace))):
            self._send(self._pace.popleft())
        if self._pace:
            self._pace_timer = self._loop.call_later(PACE_STEP, self._send_paced)

    def _send(self, data: bytes) -> None:
        if self._rtp is not None and self._remote is not None:
            self._rtp.sendto(data, self._remote.address)

    def _report(self) -> None:
        # RFC 3550 section 6.2 randomises the interval so that reports of many do not coincide.
        self._report_timer = self._loop.call_later(REPORT_INTERVAL * random.uniform(0.5, 1.5), self._report)
        self._send_rtcp([self._own_report()])

    def _own_report(self) -> SenderReport | ReceiverReport:
        blocks = () if self._reception is None else (self._reception.report(time.monotonic()),)
        if self._last_sent is None or self.packets_sent == self._reported_packets:
            return ReceiverReport(self.ssrc, blocks)
        self._reported_packets = self.packets_sent
        timestamp, since = self._last_sent
        elapsed = int((time.monotonic() - since) * self._clock_rate)
        return SenderReport(
            self.ssrc,
            rtcp.ntp_time(time.time()),
            (timestamp + elapsed) & 0xFFFFFFFF,
            self.packets_sent,
            self.bytes_sent,
            blocks,
        )

    def _send_rtcp(self, packets: Sequence[rtcp.RtcpPacket]) -> None:
        remote = self._remote
        if remote is None or self._rtp is None or self._rtcp is None:
            return
        description = SourceDescription(((self.ssrc, ((CNAME, self._cname),)),))
        data = rtcp.compound([packets[0], description, *packets[1:]])
        if remote.rtcp_mux:
            self._rtp.sendto(data, remote.address)
        else:
            self._rtcp.sendto(data, remote.rtcp)

    def _check(self) -> None:
        """Let the checker act: send what it has, hear its events, come back at its next timer."""
        checker, now = self._checker, time.monotonic()
        if checker is None or self._rtp is None or self._remote is None:
            return
        checker.handle_timer(now)
        for data, destination in checker.to_send():
            self._rtp.sendto(data, destination)
        while (event := checker.next_event()) is not None:
            self._checked(event)
        if self._check_timer is not None:
            self._check_timer.cancel()
        due = checker.next_timer()
        self._check_timer = None if due is None else self._loop.call_at(max(due, now), self._check)

    def _new_checker(self, remote: RemoteStream) -> Checker | None:
        """Checks towards this address, begun; None where it asks for none."""
        if remote.ufrag is None or remote.password is None:
            return None
        timing = CheckTiming(consent_timeout=self._consent_timeout)
        theirs = IceCredentials(remote.ufrag, remote.password)
        checker = Checker(self._credentials, theirs, remote.address, secrets.token_bytes, timing)
        checker.start(time.monotonic())
        return checker

    def _checked(self, event: Joined | JoinFailed | ConsentLost) -> None:
        waiting = self._joined if self._joined is not None and not self._joined.done() else None
        match event:
            case Joined() if waiting is not None:
                waiting.set_result(None)
            case JoinFailed(reason=reason) if waiting is not None:
                waiting.set_exception(JoinError(f"{self._medium}: {reason}"))
            case JoinFailed() | ConsentLost():
                self._user.consent_lost()


class _Port(asyncio.DatagramProtocol):
    """A bound socket that hands datagrams on; ICMP errors are the far end's problem, not ours."""

    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._received(data, Address(addr[0], addr[1]))


def _bind_pair(family: socket.AddressFamily, host: str) -> tuple[socket.socket, socket.socket] | None:
    sockets = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    try:
        sockets[0].bind((host, 0))
        port: int = sockets[0].getsockname()[1]
        if port % 2 == 0:
            sockets[1].bind((host, port + 1))
            sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            return sockets
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
    for one in sockets:
        one.close()
    return None
