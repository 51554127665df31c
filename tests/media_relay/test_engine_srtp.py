"""Encrypted legs in either engine: what comes in is believed only with its key, no index goes out for two packets."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
from pylibsrtp import Error, Policy, Session

from media_relay.engine import Engine, EngineLeg, GroupSpec, Inlet, Outlet
from media_relay.engine.native import NativeEngine
from media_relay.engine.plain import PlainEngine
from media_relay.engine.security import MAX_SSRCS, PROFILES, session
from media_relay.sockets import open_udp
from protocols.net import Address
from protocols.rtp.packet import RtpPacket, peek_header
from protocols.srtp import KEY_BYTES, Profile, Srtp

GROUP = "1001@srtp"
SSRC = 0xDECADE
ENGINES: dict[str, Callable[[], Engine]] = {"plain": PlainEngine, "native": partial(NativeEngine, threaded=False)}
VECTORS: dict[Profile, tuple[str, str]] = {
    # Of libsrtp's own test driver (srtp_validate, srtp_validate_gcm): key and salt, and a packet under them.
    "AES_CM_128_HMAC_SHA1_80": (
        "e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6",
        "800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb",
    ),
    "AEAD_AES_128_GCM": (
        "000102030405060708090a0b0c0d0e0fa0a1a2a3a4a5a6a7a8a9aaab",
        "800f1234decafbadcafebabec5002ede04cfdd2eb91159e0880aa06ed2976826f796b201df3131a127e8a392",
    ),
}


def keys(profile: Profile, name: int = 1) -> Srtp:
    return Srtp(profile, bytes([name]) * KEY_BYTES[profile])


def rtp(number: int, payload: bytes, ssrc: int = 7) -> bytes:
    return RtpPacket(96, number & 0xFFFF, 100 * number & 0xFFFFFFFF, ssrc, payload).serialise()


class Sender:
    """The broadcaster's end of SRTP."""

    def __init__(self, security: Srtp) -> None:
        policy = Policy(security.master_key_and_salt, Policy.SSRC_ANY_OUTBOUND, srtp_profile=PROFILES[security.profile])
        self.protect = Session(policy).protect


class Broadcast:
    """One engine with a source and its viewers, whose sockets are read at once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.opened: list[socket.socket] = []
        self.port, self.phone = self.open(), self.open()
        self.views: dict[str, socket.socket] = {}
        self.outlets: dict[str, Outlet] = {}
        self.now = 100.0
        engine.watch(self.port)
        engine.set_group(GroupSpec(GROUP))

    def open(self) -> socket.socket:
        self.opened.append(open_udp(Address("127.0.0.1", 0), buffer_bytes=4_000_000, dscp=0))
        return self.opened[-1]

    def set_source(self, security: Srtp | None, payload_type: int = 96) -> None:
        peer = Address(*self.phone.getsockname())
        inlet = Inlet("video", self.port, peer, payload_type, True, "VP8", 90000, security=security)
        self.engine.set_leg(EngineLeg(GROUP, "source", (inlet,)), self.now)

    def set_viewer(self, name: str, security: Srtp | None, payload_type: int = 97) -> None:
        if name not in self.views:
            self.views[name] = self.open()
        to = Address(*self.views[name].getsockname())
        self.set_outlet(name, Outlet("video", self.port, to, payload_type, SSRC, security=security))

    def set_outlet(self, name: str, outlet: Outlet) -> None:
        self.outlets[name] = outlet
        self.engine.set_leg(EngineLeg(GROUP, name, (), (outlet,)), self.now)

    def send(self, *packets: bytes) -> None:
        for packet in packets:
            self.phone.sendto(packet, self.port.getsockname())
            self.now += 0.001
            self.engine.step(self.now)

    def inject(self, *packets: bytes) -> None:
        self.now += 0.01
        self.engine.inject(GROUP, "video", 0, packets, self.now)

    def got(self, name: str) -> list[bytes]:
        packets: list[bytes] = []
        while True:
            try:
                packets.append(self.views[name].recv(20_000))
            except BlockingIOError:
                return packets

    def payloads(self, name: str, opened_by: Session | None = None) -> list[bytes]:
        packets = self.got(name)
        return [(opened_by.unprotect(packet) if opened_by is not None else packet)[12:] for packet in packets]

    @property
    def unauthentic(self) -> int:
        return self.engine.totals().unauthentic


@pytest.fixture(params=list(ENGINES))
def broadcast(request: pytest.FixtureRequest) -> Iterator[Broadcast]:
    made = Broadcast(ENGINES[request.param]())
    yield made
    made.engine.close()
    for sock in made.opened:
        sock.close()


@pytest.fixture(params=list(KEY_BYTES))
def profile(request: pytest.FixtureRequest) -> Profile:
    chosen: Profile = request.param
    return chosen


def test_published_packets_are_decrypted(broadcast: Broadcast, profile: Profile) -> None:
    key, packet = map(bytes.fromhex, VECTORS[profile])
    broadcast.set_source(Srtp(profile, key), payload_type=15)
    broadcast.set_viewer("v", None)
    broadcast.send(packet)
    assert broadcast.payloads("v") == [b"\xab" * 16]


def test_what_is_forged_replayed_truncated_or_in_the_clear_is_dropped_counted_and_no_sign_of_life(
    broadcast: Broadcast, profile: Profile
) -> None:
    broadcast.set_source(keys(profile))
    broadcast.set_viewer("v", None)
    sent = Sender(keys(profile)).protect(rtp(1, b"genuine"))
    forged = [sent[:at] + bytes([sent[at] ^ 1]) + sent[at + 1 :] for at in (2, 5, 9, 14, len(sent) - 1)]
    truncated = [sent[:size] for size in range(12, len(sent))]
    strange = [Sender(keys(profile, 2)).protect(rtp(1, b"other key")), rtp(1, b"in the clear")]
    refused = [*forged, *truncated, *strange]
    broadcast.send(*refused)
    leg = broadcast.engine.leg(GROUP, "source")
    assert leg is not None
    assert (leg.heard_at, leg.received, broadcast.unauthentic) == (None, 0, len(refused))
    broadcast.send(sent)
    assert broadcast.payloads("v") == [b"genuine"]
    heard = broadcast.engine.leg(GROUP, "source")
    broadcast.send(sent)
    assert broadcast.unauthentic == len(refused) + 1
    assert broadcast.engine.leg(GROUP, "source") == heard
    assert not broadcast.got("v")


def test_numbers_roll_over_twice_on_both_sides_with_late_and_replayed_packets(
    broadcast: Broadcast, profile: Profile
) -> None:
    broadcast.set_source(keys(profile, 1))
    broadcast.set_viewer("v", keys(profile, 2))
    sender, viewer = Sender(keys(profile, 1)), session(keys(profile, 2), None)
    expected: list[bytes] = []
    number = 65_000
    for turn in range(70):  # a gap of 2,500 each time: two roll-overs and a half
        protected = {at: sender.protect(rtp(at, b"%d" % at)) for at in range(number, number + 6)}
        late = protected.pop(number + 1)
        broadcast.send(*protected.values(), late, protected[number])
        expected += [b"%d" % at for at in [*protected, number + 1]]
        assert broadcast.unauthentic == turn + 1, "one replayed packet each time"
        edge = (number + 5) // 65536 * 65536 + 65533  # the late one comes on the other side of the roll-over
        number = edge if number < edge <= number + 2500 else number + 2500
    assert broadcast.payloads("v", viewer) == expected
    broadcast.set_viewer("v", keys(profile, 3))
    broadcast.send(sender.protect(rtp(number, b"new keys count from the start")))
    assert broadcast.payloads("v", session(keys(profile, 3), None)) == [b"new keys count from the start"]


def test_a_packet_comes_as_late_as_the_history_reaches(broadcast: Broadcast, profile: Profile) -> None:
    """A broadcaster's answer to our NACK, say."""
    broadcast.set_source(keys(profile, 1))
    broadcast.set_viewer("v", keys(profile, 2))
    sender, viewer = Sender(keys(profile, 1)), session(keys(profile, 2), None)
    packets = [sender.protect(rtp(number, b"%d" % number)) for number in range(902)]
    late = packets.pop(1)
    broadcast.send(*packets, late)
    assert broadcast.payloads("v", viewer) == [b"0", *(b"%d" % number for number in range(2, 902)), b"1"]
    assert broadcast.unauthentic == 0


def test_what_a_viewer_missed_goes_out_again_as_the_very_same_packet(broadcast: Broadcast, profile: Profile) -> None:
    broadcast.set_source(None)
    broadcast.set_viewer("v", keys(profile))
    broadcast.inject(*(rtp(number, b"%d" % number) for number in range(300)))
    first = broadcast.got("v")
    lost = [peek_header(packet).sequence for packet in first]
    broadcast.now += 10
    assert broadcast.engine.resend(GROUP, "v", "video", [lost[0], lost[150], lost[299]], broadcast.now) == 3
    assert broadcast.got("v") == [first[0], first[150], first[299]]


def test_an_index_is_never_used_for_other_octets(broadcast: Broadcast, profile: Profile) -> None:
    """A re-INVITE changes the payload type: the old packets would differ under their old index."""
    broadcast.set_source(None)
    broadcast.set_viewer("v", keys(profile))
    broadcast.inject(*(rtp(number, b"%d" % number) for number in range(10)))
    lost = [peek_header(packet).sequence for packet in broadcast.got("v")]
    broadcast.set_viewer("v", keys(profile), payload_type=98)
    broadcast.now += 10
    assert broadcast.engine.resend(GROUP, "v", "video", lost, broadcast.now) == 0
    assert not broadcast.got("v")
    broadcast.set_viewer("v", keys(profile), payload_type=97)
    assert broadcast.engine.resend(GROUP, "v", "video", lost, broadcast.now) == 10


def test_new_keys_hold_from_the_next_packet_on_and_nothing_older_goes_out_under_them(
    broadcast: Broadcast, profile: Profile
) -> None:
    broadcast.set_source(None)
    broadcast.set_viewer("v", keys(profile, 1))
    broadcast.inject(*(rtp(number, b"%d" % number) for number in range(10)))
    lost = [peek_header(packet).sequence for packet in broadcast.got("v")]
    broadcast.set_viewer("v", keys(profile, 2))
    broadcast.inject(rtp(10, b"10"))
    viewer = session(keys(profile, 2), None)
    assert broadcast.payloads("v", viewer) == [b"10"]
    broadcast.now += 10
    assert broadcast.engine.resend(GROUP, "v", "video", lost, broadcast.now) == 0
    broadcast.set_viewer("v", None)
    broadcast.inject(rtp(11, b"11"))
    assert broadcast.payloads("v") == [b"11"]


def test_a_source_changes_its_keys(broadcast: Broadcast, profile: Profile) -> None:
    broadcast.set_source(keys(profile, 1))
    broadcast.set_viewer("v", None)
    before, after = Sender(keys(profile, 1)), Sender(keys(profile, 2))
    broadcast.send(before.protect(rtp(1, b"1")))
    broadcast.set_source(keys(profile, 2))
    broadcast.send(before.protect(rtp(2, b"2")), after.protect(rtp(3, b"3")))
    assert (broadcast.payloads("v"), broadcast.unauthentic) == ([b"1", b"3"], 1)


def test_the_same_keys_again_forget_no_replay_and_no_roll_over(broadcast: Broadcast, profile: Profile) -> None:
    """Hold takes the inlet away, resuming brings it back; the viewer's re-INVITE names the same keys too."""
    broadcast.set_source(keys(profile, 1))
    broadcast.set_viewer("v", keys(profile, 2))
    sender, viewer = Sender(keys(profile, 1)), session(keys(profile, 2), None)
    recorded = [sender.protect(rtp(number, b"%d" % number)) for number in range(65_530, 65_542)]
    broadcast.send(*recorded)
    broadcast.engine.set_leg(EngineLeg(GROUP, "source"), broadcast.now)
    broadcast.set_source(keys(profile, 1))
    broadcast.set_outlet("v", replace(broadcast.outlets["v"], flow="paused"))
    broadcast.set_viewer("v", keys(profile, 2))
    broadcast.send(*recorded, sender.protect(rtp(65_542, b"65542")))
    assert broadcast.unauthentic == len(recorded)
    assert broadcast.payloads("v", viewer) == [b"%d" % number for number in range(65_530, 65_543)]


def test_a_large_packet_is_encrypted_too(broadcast: Broadcast, profile: Profile) -> None:
    broadcast.set_source(keys(profile, 1))
    broadcast.set_viewer("v", keys(profile, 2))
    sender = session(keys(profile, 1), 7, room=20_000)
    broadcast.send(sender.protect(rtp(1, bytes(9000))))
    assert broadcast.payloads("v", session(keys(profile, 2), None, room=20_000)) == [bytes(9000)]


def test_a_burst_to_many_viewers_is_encrypted_for_each(broadcast: Broadcast, profile: Profile) -> None:
    """More than the batch's memory holds, in runs of UDP GSO."""
    broadcast.set_source(None)
    names = {f"v{index}": index for index in range(1, 41)}
    for name, index in names.items():
        broadcast.set_viewer(name, keys(profile, index) if index % 4 else None)
    sent = [bytes([number]) * (1200 if number < 19 else 500) for number in range(20)]
    broadcast.inject(*(rtp(number, payload) for number, payload in enumerate(sent)))
    for name, index in names.items():
        viewer = session(keys(profile, index), None) if index % 4 else None
        assert broadcast.payloads(name, viewer) == sent
    out = broadcast.engine.outlet(GROUP, "v1", "video")
    assert out is not None
    assert (out.packets, out.octets) == (20, sum(map(len, sent))), "octets are those of the payload"


def test_a_peer_has_so_many_ssrcs_and_no_more(broadcast: Broadcast, profile: Profile) -> None:
    broadcast.set_source(keys(profile))
    broadcast.set_viewer("v", None)
    sender = Sender(keys(profile))
    broadcast.send(*(sender.protect(rtp(1, b"x", ssrc)) for ssrc in range(1, MAX_SSRCS + 6)))
    assert len(broadcast.got("v")) == MAX_SSRCS
    assert broadcast.unauthentic == 5
    broadcast.send(sender.protect(rtp(2, b"y", MAX_SSRCS)))
    assert broadcast.payloads("v") == [b"y"]


def test_a_viewer_with_the_wrong_key_reads_nothing(broadcast: Broadcast, profile: Profile) -> None:
    broadcast.set_source(None)
    broadcast.set_viewer("v", keys(profile))
    broadcast.inject(rtp(1, b"secret picture"))
    (packet,) = broadcast.got("v")
    assert b"secret" not in packet
    with pytest.raises(Error):
        session(keys(profile, 2), None).unprotect(packet)


def test_the_thread_of_the_native_engine_encrypts(profile: Profile) -> None:
    broadcast = Broadcast(NativeEngine())
    try:
        broadcast.set_source(keys(profile, 1))
        broadcast.set_viewer("v", keys(profile, 2))
        sender, viewer = Sender(keys(profile, 1)), session(keys(profile, 2), None)
        broadcast.send(sender.protect(rtp(1, b"live")))
        broadcast.views["v"].settimeout(30)
        assert viewer.unprotect(broadcast.views["v"].recv(2000))[12:] == b"live"
    finally:
        broadcast.engine.close()
        for sock in broadcast.opened:
            sock.close()


def test_no_repr_and_no_error_tells_a_key(profile: Profile) -> None:
    secret = b"swordfish-swordfish-swordfish!"[: KEY_BYTES[profile]]
    security, port = Srtp(profile, secret), socket.socket()
    outlet = Outlet("audio", port, Address("127.0.0.1", 9), 0, 1, security=security)
    port.close()
    with pytest.raises(ValueError, match="takes") as caught:
        Srtp(profile, secret + b"!")
    for told in (
        repr(security),
        str(security),
        repr(outlet),
        repr(EngineLeg("g", "l", (), (outlet,))),
        str(caught.value),
    ):
        assert "swordfish" not in told
