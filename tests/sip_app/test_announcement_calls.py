"""Calls that are spoken to: codes confirmed by voice, PINs asked for, keys taken; and those answered silently."""

import asyncio
from pathlib import Path

import pytest
from broadcast_world import BroadcastWorld, MediaPhone, broadcasting, until
from structlog.testing import capture_logs
from ua import DOMAIN, Call

from media_relay.prompts import FOLDER, payloads
from protocols.control import MediaSpec
from protocols.dtmf_relay import key_of
from protocols.pin import hash_pin
from protocols.prompts import Language, Prompt
from protocols.records import Channel
from protocols.rtp.packet import RtpPacket
from protocols.rtp.telephone_event import build
from protocols.sdp import SessionDescription, parse
from sip_app.metrics import PINS

PIN = "4711"
KEYS = 101
CHINESE = (("Accept-Language", "zh"),)


def ending(name: Prompt, language: Language = "en") -> bytes:
    """How a shipped prompt ends, and all of it that is spoken here: the media relay's tests hear whole ones."""
    return (FOLDER / language / f"{name}.ulaw").read_bytes()[-800 if name.isdigit() else -2400 :]


@pytest.fixture(autouse=True)
def short_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(name: Prompt, language: Language, _: MediaSpec) -> list[bytes]:
        sound = ending(name, language)
        return [sound[at : at + 160] for at in range(0, len(sound), 160)]

    monkeypatch.setattr("media_relay.announcements.payloads", cut)


class Caller:
    """A phone in a call with the server: what it heard, and its keypad."""

    def __init__(self, phone: MediaPhone, call: Call, session: SessionDescription) -> None:
        self.phone, self.call, self.session = phone, call, session
        self._timestamp, self._sequence = 0, 0

    @property
    def heard(self) -> bytes:
        return b"".join(packet.payload for packet in self.phone.audio.packets if packet.payload_type == 0)

    async def hears(self, *names: Prompt, language: Language = "en") -> None:
        """Wait until these prompts were heard."""
        sound = b"".join(ending(name, language) for name in names)
        await until(lambda: sound in self.heard)

    async def hears_beginning_of(self, name: Prompt, language: Language = "en") -> None:
        await until(lambda: ending(name, language)[:800] in self.heard)

    def press(self, keys: str) -> None:
        for key in keys:
            self._timestamp += 1600
            for event in build(key, 480):
                self._sequence += 1
                packet = RtpPacket(KEYS, self._sequence, self._timestamp, 5, event.serialise())
                self.phone.audio._wire.sendto(packet.serialise(), tuple(self.phone.audio.relay))


def offer(phone: MediaPhone, *, direction: str = "sendrecv", video: bool = True, keys: bool = True) -> bytes:
    text = phone.offer(direction=direction).decode()
    if keys:
        text = text.replace("RTP/AVP 0\r\n", f"RTP/AVP 0 {KEYS}\r\na=rtpmap:{KEYS} telephone-event/8000\r\n")
    return (text if video else text.partition("m=video")[0]).encode()


async def called(phone: MediaPhone, number: str, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> Caller:
    call = await phone.dial(number.replace("#", "%23"), body=body, headers=headers)
    answer = (await call.answered()).body
    return Caller(phone, call, phone.connect(answer))


async def watched_without_a_key(world: BroadcastWorld) -> MediaPhone:
    """A viewer who presses nothing when asked for the PIN, of which one call may try one; until he is hung up on."""
    announcements = world.config.announcements.model_copy(update={"pin_tries": 1, "key_timeout": 0.2})
    world.service.config = world.config.model_copy(update={"announcements": announcements})
    phone = await world.phone("1002")
    await called(phone, "1001", offer(phone), CHINESE)
    await until(lambda: bool(phone.ends), 15)
    return phone


async def private(world: BroadcastWorld, listed: frozenset[str] = frozenset()) -> None:
    """1001's broadcasts want a PIN from now on, of all but those listed."""
    channel = Channel(private=True, pin=hash_pin(PIN, bytes(16)), listed=listed)
    await world.store.channels.change(f"1001@{DOMAIN}", lambda _: channel)


def test_a_code_is_confirmed_by_voice_and_in_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone = await world.phone("1002")
            caller = await called(phone, "*21*1003#", offer(phone))
            audio, video = caller.session.media
            assert audio.direction == "sendrecv" and audio.port != 9
            assert [(f.payload_type, f.name, f.fmtp) for f in audio.formats[1:]] == [(KEYS, "telephone-event", "0-15")]
            assert video.rejected
            await caller.hears("active")
            assert await phone.ended() == 'SIP;cause=200;text="Forwarding to 1003 active"'
            await until(lambda: not world.on_relay)

    asyncio.run(scenario())


def test_a_question_is_answered_with_the_number_digit_by_digit_in_the_callers_language(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone = await world.phone("1002")
            silent = await called(phone, "*21*1003#", offer(phone, direction="inactive"))
            await phone.ended()
            assert silent.session.media[0].port == 9
            caller = await called(phone, "*#21#", offer(phone), (("Accept-Language", "zh-CN, en;q=0.5"),))
            await caller.hears("forwarded-to", "1", "0", "0", "3", language="zh")

    asyncio.run(scenario())


@pytest.mark.parametrize("way", ["inactive", "no offer", "sendonly", "switched off", "no codec"])
def test_who_cannot_hear_is_answered_silently_and_at_once(tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            if way == "switched off":
                announcements = world.config.announcements.model_copy(update={"codes": False})
                world.service.config = world.config.model_copy(update={"announcements": announcements})
            phone = await world.phone("1002")
            body = (
                b"" if way == "no offer" else offer(phone, direction=way if way.endswith(("ve", "ly")) else "sendrecv")
            )
            if way == "no codec":
                body = body.replace(b"PCMU", b"GSM").replace(b"AVP 0", b"AVP 99").replace(b"rtpmap:0", b"rtpmap:99")
            call = await phone.dial("*%2321%23", body=body)
            answer = parse((await call.answered()).body)
            assert (answer.media[0].port, answer.media[0].direction) == (9, "inactive")
            assert await phone.ended() == 'SIP;cause=200;text="No forwarding registered"'

    asyncio.run(scenario())


def test_without_a_relay_codes_work_silently(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.stop_relay()
            await until(lambda: not world.link.up)
            phone = await world.phone("1002")
            caller = await called(phone, "*21*1003#", offer(phone))
            assert caller.session.media[0].port == 9
            assert await phone.ended() == 'SIP;cause=200;text="Forwarding to 1003 active"'

    asyncio.run(scenario())


def speaking_refusals(world: BroadcastWorld) -> None:
    announcements = world.config.announcements.model_copy(update={"refusals": True})
    world.service.config = world.config.model_copy(update={"announcements": announcements})


def test_a_refusal_can_be_spoken_before_it_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            speaking_refusals(world)
            await world.broadcaster()
            channel = Channel(private=True)
            await world.store.channels.change(f"1001@{DOMAIN}", lambda _: channel)
            phone = await world.phone("1002")
            for number, prompt, status in (("1001", "private", 403), ("*21*4711", "invalid", 484)):
                call = await phone.dial(number, body=offer(phone))
                caller = Caller(phone, call, phone.connect((await call.until(183)).body))
                await caller.hears(prompt)
                assert (await call.final()).status == status
            await until(lambda: set(world.relay.relay.groups.by_id) == {world.group.channel})

    asyncio.run(scenario())


def test_who_gives_up_while_a_refusal_is_spoken_hears_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            speaking_refusals(world)
            phone = await world.phone("1002")
            call = await phone.dial("*21*4711", body=offer(phone))
            caller = Caller(phone, call, phone.connect((await call.until(183)).body))
            await caller.hears_beginning_of("invalid")
            call.cancel()
            assert (await call.final()).status == 487
            await until(lambda: not world.on_relay)

    asyncio.run(scenario())


def test_a_caller_who_hangs_up_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone = await world.phone("1002")
            caller = await called(phone, "*21*1003#", offer(phone))
            await caller.hears_beginning_of("active")
            assert (await caller.call.send("BYE")).status == 200
            await until(lambda: not world.on_relay)
            assert not world.server.endpoint.dialogs

    asyncio.run(scenario())


def test_who_knows_the_pin_sees_the_broadcast_on_the_same_ports(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            broadcaster, _ = await world.broadcaster()
            await private(world)
            phone = await world.phone("1002")
            caller = await called(phone, "1001", offer(phone))
            audio, video = caller.session.media
            assert (audio.direction, video.direction, video.rejected) == ("sendrecv", "sendonly", False)
            await caller.hears_beginning_of("pin-enter")
            for socket in broadcaster.media:
                socket.send(b"\x65secret")
            caller.press(PIN + "#")
            await until(lambda: bool(world.group.viewers))
            assert not any(b"secret" in packet.payload for packet in phone.audio.packets)
            for socket in broadcaster.media:
                socket.send(b"\x65welcome")
            await until(lambda: any(b"welcome" in packet.payload for packet in phone.video.packets))
            await until(lambda: any(b"welcome" in packet.payload for packet in phone.audio.packets))
            response = await phone.reoffer(caller.call, body=offer(phone), content_type="application/sdp")
            again = parse(response.body)
            assert again.origin.session_id == caller.session.origin.session_id
            assert again.origin.version > caller.session.origin.version
            assert [line.port for line in again.media] == [audio.port, video.port]
            assert (await caller.call.send("BYE")).status == 200
            await until(lambda: not world.group.viewers)

    asyncio.run(scenario())


def test_a_wrong_pin_is_asked_for_again_and_in_the_end_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            await private(world)
            announcements = world.config.announcements.model_copy(update={"pin_tries": 2})
            world.service.config = world.config.model_copy(update={"announcements": announcements})
            phone = await world.phone("1002")
            caller = await called(phone, "1001", offer(phone), CHINESE)
            await caller.hears_beginning_of("pin-enter", "zh")
            caller.press("1111#")
            await caller.hears("pin-wrong", language="zh")
            caller.press("2222#")
            await caller.hears("pin-failed", language="zh")
            assert await phone.ended() == 'SIP;cause=403;text="Wrong PIN"'
            assert not world.group.viewers
            await until(lambda: set(world.relay.relay.groups.by_id) == {world.group.channel})

    asyncio.run(scenario())


def test_pressing_nothing_is_no_wrong_pin_but_is_asked_no_oftener(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"channels": {"pin_attempts_per_caller": 1}}) as world:
            await world.broadcaster()
            await private(world)
            with capture_logs() as events:
                phone = await watched_without_a_key(world)
            assert phone.ends == ['SIP;cause=403;text="No PIN Entered"']
            assert not [event for event in events if event["event"] == "viewer.wrong_pin"]
            caller = await called(phone, "1001", offer(phone))
            await caller.hears_beginning_of("pin-enter")
            caller.press(f"{PIN}#")
            await until(lambda: bool(world.group.viewers))

    asyncio.run(scenario())


def verdicts() -> dict[str, float]:
    samples = [sample for metric in PINS.collect() for sample in metric.samples if sample.name.endswith("_total")]
    return {sample.labels["verdict"]: sample.value for sample in samples}


@pytest.mark.parametrize("verdict", ["right", "refused", "none", "gone", "ended", "full", "unheard"])
def test_whoever_is_asked_counts_by_how_it_ended(tmp_path: Path, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("media_relay.liveness.UNREACHABLE_SILENCE", 0.2)
    monkeypatch.setattr("media_relay.liveness.VISIT_INTERVAL", 0.2)
    settings = {
        "announcements": {"pin_tries": 1, "key_timeout": 0.5 if verdict == "none" else 10},
        "services": [{"number": "8888", "max_viewers": 1}],
    }

    async def scenario() -> None:
        async with broadcasting(tmp_path, config=settings) as world:
            _, live = await world.broadcaster()
            await private(world, listed=frozenset((f"1003@{DOMAIN}",)))
            phone, before = await world.phone("1002"), verdicts()
            caller = await called(phone, "1001", offer(phone))
            await caller.hears_beginning_of("pin-enter")
            match verdict:
                case "gone":
                    await caller.call.send("BYE")
                case "unheard":
                    phone.audio.close()
                    phone.video.close()
                case "ended":
                    await live.send("BYE")
                case "full":
                    await world.viewer("1003")
            if verdict in ("right", "refused", "ended", "full"):
                caller.press("0000#" if verdict == "refused" else f"{PIN}#")
            await until(lambda: verdicts() == before | {verdict: before.get(verdict, 0) + 1}, 12)

    asyncio.run(scenario())


@pytest.mark.parametrize("number", ["1001", "*%2321%23"])
def test_where_nobody_listens_the_call_is_ended_soon(
    tmp_path: Path, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("media_relay.announcements.payloads", payloads)  # it is still speaking when it finds out
    monkeypatch.setattr("media_relay.liveness.UNREACHABLE_SILENCE", 0.2)
    monkeypatch.setattr("media_relay.liveness.VISIT_INTERVAL", 0.2)

    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            await private(world)
            phone = await world.phone("1002")
            body = offer(phone)
            phone.audio.close()  # the network says so (ICMP)
            phone.video.close()
            await (await phone.dial(number, body=body)).answered()
            await until(lambda: bool(phone.ends), 8)
            wanted = "No media from you" if number == "1001" else "No forwarding registered"
            assert wanted in phone.ends[0]
            assert not [request for request, _ in phone.heard if request.method == "OPTIONS"]

    asyncio.run(scenario())


def test_keys_in_info_open_the_door_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            await private(world)
            phone = await world.phone("1002")
            caller = await called(phone, "1001", offer(phone, keys=False))
            await caller.hears_beginning_of("pin-enter")
            for key in PIN + "#":
                body = f"Signal={key}\r\nDuration=160\r\n".encode()
                response = await caller.call.send("INFO", body=body, content_type="application/dtmf-relay")
                assert response.status == 200
            await until(lambda: bool(world.group.viewers))

    asyncio.run(scenario())


def test_a_phone_that_joins_by_checks_is_spoken_to_after_its_check(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            broadcaster, _ = await world.broadcaster()
            await private(world)
            phone = await world.phone("1002")
            body = phone.offer(ice=True).replace(b"AVP 0\r\n", b"AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n")
            call = await phone.dial("1001", body=body)
            answer = (await call.answered()).body
            caller = Caller(phone, call, phone.connect(answer))
            await asyncio.sleep(0.2)
            assert not phone.audio.packets
            phone.connect(answer, join=True)
            await caller.hears_beginning_of("pin-enter")
            caller.press(PIN + "#")
            await until(lambda: bool(world.group.viewers))
            for socket in broadcaster.media:
                socket.send(b"\x65welcome")
            await until(lambda: any(b"welcome" in packet.payload for packet in phone.video.packets))

    asyncio.run(scenario())


def test_a_phone_without_sound_cannot_be_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            await world.broadcaster()
            await private(world)
            phone = await world.phone("1002")
            body = phone.offer().replace(b"m=audio %d" % phone.audio.port, b"m=audio 0")
            response = await (await phone.dial("1001", body=body)).final()
            assert (response.status, response.reason) == (403, "PIN Needed: Call With Sound")

    asyncio.run(scenario())


def test_a_viewer_let_in_by_pin_survives_a_restart_and_one_being_asked_does_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, orphan_grace=5) as world:
            await world.broadcaster()
            await private(world)
            inside, outside = await world.phone("1002"), await world.phone("1003")
            caller = await called(inside, "1001", offer(inside))
            await caller.hears_beginning_of("pin-enter")
            caller.press(PIN + "#")
            await until(lambda: bool(world.group.viewers))
            asked = await called(outside, "1001", offer(outside))
            await asked.hears_beginning_of("pin-enter")
            await world.kill_server()
            await world.start_server()
            assert [viewer.number for viewer in world.group.viewers.values()] == ["1002"]
            assert await outside.ended()
            assert not inside.ends
            await until(lambda: set(world.relay.relay.groups.by_id) == {world.group.channel})

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("kind", "body", "key"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n", "5"),
        ("application/dtmf-relay;x=y", b"Duration=1\nsignal = #\n", "#"),
        ("application/dtmf-relay", b"Signal=10\r\n", "*"),
        ("application/dtmf-relay", b"Signal=11\r\n", "#"),
        ("application/dtmf", b"*\r\n", "*"),
        ("application/dtmf", b"a", "A"),
        ("application/dtmf", b"", ""),
        ("application/dtmf", b"55", ""),
        ("application/dtmf-relay", b"Signal=99\r\n", ""),
        ("application/dtmf-relay", b"\xff\x00" * 5000, ""),
        ("text/plain", b"5", ""),
    ],
)
def test_keys_in_info_are_read_leniently(kind: str, body: bytes, key: str) -> None:
    assert key_of(kind, body) == key
