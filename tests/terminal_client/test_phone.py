"""The phone's calls as a user lives them, on a scripted line and a media side that only takes notes."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from protocols.net import Address
from terminal_client.codes import is_normal, reason_text
from terminal_client.journal import Journal
from terminal_client.media import MediaSession
from terminal_client.messages import Answer, Answered, Command, Ended, Hangup, Press, Progress, Registration
from terminal_client.outcome import REFUSED_CALL, Outcome, PhoneOptions, advised
from terminal_client.phone import Phone
from terminal_client.report import CallReport, MediaReport
from terminal_client.signalling import Call, Line, LineOptions, Lost, RegistrationRefusedError
from terminal_client.streams import (
    ConsentLost,
    FirstPicture,
    FirstSound,
    JoinError,
    LocalMedia,
    LocalStream,
    MediaEvent,
    MediaOptions,
    MediaStats,
    RemoteMedia,
)

SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=ice-lite\r\n"
    "m=audio 20000 RTP/AVP 96\r\na=rtpmap:96 AMR/8000\r\na=fmtp:96 octet-align=1\r\n"
    "m=video 20002 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\na=fmtp:99 packetization-mode=1;profile-level-id=42e01f\r\n"
)
LINE = LineOptions(Address("127.0.0.1", 5060), "1001", "secret")
Script = Callable[["Network", Call, str], Coroutine[Any, Any, None]]


class Network:
    """A line whose far end is a script per dialled number."""

    def __init__(self, **scripts: Script) -> None:
        self.scripts, self.options, self.warning = scripts, LINE, ""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.incoming: asyncio.Queue[Call] = asyncio.Queue()
        self.dialled: list[str] = []
        self.calls: dict[int, Call] = {}
        self.commands: list[Command] = []
        self.refusal: RegistrationRefusedError | None = None
        self.silent = False
        self.closed = 0
        self.amr = True
        self._tasks: list[asyncio.Task[None]] = []

    async def register(self) -> Registration:
        if self.silent:
            await asyncio.Event().wait()
        if self.refusal:
            raise self.refusal
        return Registration(200, "OK", 300)

    def dial(self, uri: str, media: str) -> Call:
        number = uri.removeprefix("sip:").split("@")[0]
        self.dialled.append(number)
        call = self.calls[len(self.dialled)] = Call(cast(Line, self), len(self.dialled))
        script = self.scripts["code" if number.startswith("*") else f"to_{number}"]
        self._tasks.append(asyncio.create_task(script(self, call, media)))
        return call

    def listen(self, media: str) -> None:
        call = self.calls[-1] = Call(cast(Line, self), -1, SDP, '"Ann" <sip:1002@127.0.0.1>;tag=x')
        self.incoming.put_nowait(call)

    def command(self, command: Command) -> None:
        self.commands.append(command)
        match command:
            case Hangup(call=number):
                self.calls[number].put(Ended(number, 200, "OK"))
            case Answer(call=number, status=200):
                self.calls[number].put(Answered(number, 200, "OK", "", ""))

    async def close(self) -> None:
        self.closed += 1


class Notes:
    """A media session that writes down what it is told."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[MediaEvent] = asyncio.Queue()
        self.done: list[str] = []
        self.join_error = ""
        self.dark = False
        self.knows_keys = True

    async def open(self) -> LocalMedia:
        stream = LocalStream(5100, 5101, "uuuu", "p" * 22)
        return LocalMedia("127.0.0.1", stream, stream)

    def negotiated(self, remote: RemoteMedia) -> None:
        self.done.append("negotiated")

    async def join(self) -> None:
        self.done.append("join")
        if self.join_error:
            raise JoinError(self.join_error)

    async def start_sending(self) -> None:
        self.done.append("send")

    def start_receiving(self) -> None:
        self.done.append("receive")
        if not self.dark:
            self.events.put_nowait(FirstPicture(0.0))

    async def pause(self) -> None:
        self.done.append("pause")

    def switch_camera(self) -> None:
        self.done.append("switch")

    def mute(self, muted: bool) -> None:
        self.done.append(f"mute {muted}")

    async def press(self, key: str) -> bool:
        self.done.append(f"press {key}")
        return self.knows_keys

    async def snapshot(self, path: Path) -> bool:
        return False

    def stats(self) -> MediaStats:
        return MediaStats()

    async def close(self) -> MediaReport:
        self.done.append("close")
        return MediaReport(frames_decoded=3)


class Paper:
    """A screen on paper."""

    def __init__(self, keys: str = "") -> None:
        self.keys: asyncio.Queue[str] = asyncio.Queue()
        self.said: list[str] = []
        self.offered: list[str] = []
        self.on_offer = dict(pair.split(":") for pair in keys.split())

    def say(self, text: str) -> None:
        self.said.append(text)

    def offer(self, keys: str) -> None:
        """Presses the keys planned for this set of choices."""
        self.offered.append(keys)
        for key in self.on_offer.pop(keys, ""):
            self.keys.put_nowait(key)

    def stats(self, role: object, stats: MediaStats) -> None: ...


class Scene:
    """One run of the phone and everything it left behind."""

    def __init__(self, keys: str = "", **settings: Any) -> None:
        self.screen, self.media, self.events = Paper(keys), Notes(), list[dict[str, Any]]()
        self.journal = Journal("json", "info", lambda line: self.events.append(json.loads(line)))
        self.options = PhoneOptions(LINE, **settings)
        self.lines: list[Network] = []

    def play(self, act: Callable[[Phone], Coroutine[Any, Any, Outcome]], network: Callable[[], Network]) -> Outcome:
        async def open_line(_: LineOptions) -> Line:
            self.lines.append(network())
            return cast(Line, self.lines[-1])

        async def run() -> Outcome:
            def open_media(*_: object) -> MediaSession:
                return cast(MediaSession, self.media)

            async with asyncio.timeout(10):
                return await act(Phone(self.options, self.screen, self.journal, open_line, open_media))

        return asyncio.run(run())

    def names(self) -> list[str]:
        return [str(event["event"]).removeprefix("phone.") for event in self.events]


async def go_live(network: Network, call: Call, media: str) -> None:
    """The reliable 183 with the answer; 200 without one."""
    call.put(Progress(call.number, 183, "Session Progress", "", SDP))
    await asyncio.sleep(0.01)
    call.put(Answered(call.number, 200, "OK", "", ""))


async def stopped(network: Network, call: Call, media: str) -> None:
    """Live, then ended by the operator."""
    await go_live(network, call, media)
    await asyncio.sleep(0.05)
    call.put(Ended(call.number, 200, "Normal call clearing", 'Q.850;cause=16;text="Enough"'))


async def code_accepted(network: Network, call: Call, media: str) -> None:
    assert "a=inactive" in media
    call.put(Answered(call.number, 200, "OK", "", SDP))
    call.put(Ended(call.number, 200, "OK", 'SIP;cause=200;text="Forwarding to 8888 active"'))


async def show(network: Network, call: Call, media: str) -> None:
    """A diverted call that is answered at once."""
    call.put(Progress(call.number, 181, "Call Is Being Forwarded", "", ""))
    call.put(Answered(call.number, 200, "OK", "", SDP))


def test_going_live_joins_before_the_answer_forwards_itself_and_sends_when_told(tmp_path: Path) -> None:
    """The order of the mission: 183, join, 200, forwarding, the choice, and only then camera and microphone."""
    media = MediaOptions(cameras=("synthetic", "clip.mp4"))
    scene = Scene("scmtpq:s cmtpq:mcq", media=media, report=tmp_path / "report.json")
    outcome = scene.play(lambda it: it.broadcast(), lambda: Network(to_8888=go_live, code=code_accepted))
    assert outcome.code == 0
    assert scene.lines[0].dialled == ["8888", "*21*8888%23"]
    assert [name for name in scene.names() if name != "stats"] == [
        *("registered", "dialled", "progress", "joining", "joined", "answered", "cfu_activated"),
        *("connected", "sending", "camera_switched", "ended"),
    ]
    assert scene.media.done == ["negotiated", "join", "send", "mute True", "switch", "close"]
    assert scene.lines[0].closed == 1, "deregistered"
    report = CallReport.read(tmp_path / "report.json")
    assert (report.role, report.number, report.media.frames_decoded) == ("broadcast", "1001", 3)
    assert report.dialled_at is not None and report.answered_at is not None and report.ended_at is not None


def test_nothing_is_sent_until_the_user_says_so() -> None:
    scene = Scene("smtpq:q")
    assert scene.play(lambda it: it.broadcast(), lambda: Network(to_8888=go_live, code=code_accepted)).code == 0
    assert "send" not in scene.media.done
    assert "live: whoever calls 1001 watches; not sending yet, press s" in scene.screen.said


def test_with_one_camera_there_is_none_to_switch_to() -> None:
    scene = Scene("mtpq:cq", send="now")
    assert scene.play(lambda it: it.broadcast(), lambda: Network(to_8888=go_live, code=code_accepted)).code == 0
    assert "switch" not in scene.media.done
    assert not any("c" in choices for choices in scene.screen.offered)
    assert "live: whoever calls 1001 watches" in scene.screen.said


def test_the_reason_of_the_end_is_shown() -> None:
    scene = Scene(send="now")
    outcome = scene.play(lambda it: it.broadcast(), lambda: Network(to_8888=stopped, code=code_accepted))
    assert (outcome.code, outcome.reason) == (0, "Enough")
    assert scene.events[-1]["reason"] == "Enough"
    assert "ended: Enough" in scene.screen.said


def test_a_failed_join_ends_the_call_as_a_media_failure() -> None:
    scene = Scene()
    scene.media.join_error = "no answer from 127.0.0.1:20000"
    outcome = scene.play(lambda it: it.broadcast(), lambda: Network(to_8888=go_live, code=code_accepted))
    assert (outcome.code, outcome.reason) == (4, "no answer from 127.0.0.1:20000")
    assert any(isinstance(command, Hangup) for command in scene.lines[0].commands)


def test_a_lost_broadcaster_dials_again_and_sends_again() -> None:
    """The first line dies under the call; the second call goes on with the same media session."""
    scene = Scene(send="now")
    first = True

    async def dies(network: Network, call: Call, media: str) -> None:
        await go_live(network, call, media)
        await asyncio.sleep(0.05)
        call.put(Lost("signalling process died"))

    def network() -> Network:
        nonlocal first
        script, first = (dies if first else stopped), False
        return Network(to_8888=script, code=code_accepted)

    outcome = scene.play(lambda it: it.broadcast(), network)
    assert (outcome.code, outcome.reason) == (0, "Enough")
    assert scene.media.done.count("join") == scene.media.done.count("send") == 2
    assert scene.media.done.count("close") == 1


@pytest.mark.parametrize("redial", [False])
def test_without_redial_a_loss_is_the_end(redial: bool) -> None:
    scene = Scene("smtpq:s", redial=redial)
    scene.media.events = asyncio.Queue()

    async def consent_lost(network: Network, call: Call, media: str) -> None:
        await go_live(network, call, media)
        await asyncio.sleep(0.02)
        scene.media.events.put_nowait(ConsentLost(0.0, "video"))

    outcome = scene.play(lambda it: it.broadcast(), lambda: Network(to_8888=consent_lost, code=code_accepted))
    assert outcome.code == 5
    assert len(scene.lines) == 1


def test_watching_receives_only_after_receive_and_is_ready_before_it_joins() -> None:
    scene = Scene("rtpq:r tpq:q")
    outcome = scene.play(lambda it: it.watch("1005"), lambda: Network(to_1005=show))
    assert outcome.code == 0
    assert scene.media.done == ["negotiated", "receive", "join", "close"]
    assert "first_picture" in scene.names()


def test_a_viewer_is_told_that_the_picture_is_awaited_and_when_it_comes() -> None:
    scene = Scene(receive="now")
    scene.media.dark = True

    async def dark_show(network: Network, call: Call, media: str) -> None:
        await show(network, call, media)
        await asyncio.sleep(0.05)
        assert scene.screen.said[-1] == "waiting for the picture"
        scene.media.events.put_nowait(FirstPicture(0.0))
        await asyncio.sleep(0.05)
        call.put(Ended(call.number, 200, "Normal call clearing", 'Q.850;cause=16;text="Enough"'))

    assert scene.play(lambda it: it.watch("1005"), lambda: Network(to_1005=dark_show)).code == 0
    assert scene.screen.said[-3:] == ["waiting for the picture", "receiving", "ended: Enough"]


async def asks_for_pin(network: Network, call: Call, media: str) -> None:
    """A voice that hangs up on who does not answer it."""
    await show(network, call, media)
    await asyncio.sleep(2.5)
    call.put(Ended(call.number, 200, "OK", 'SIP;cause=403;text="Wrong PIN"'))


def presses(scene: Scene) -> str:
    return "".join(what.removeprefix("press ") for what in scene.media.done if what.startswith("press "))


def voice_only(**settings: Any) -> Scene:
    """A viewer who hears a voice and sees nothing."""
    scene = Scene(receive="now", **settings)
    scene.media.dark = True
    scene.media.events.put_nowait(FirstSound(time.monotonic()))
    return scene


def test_a_voice_without_a_picture_may_be_asking_for_a_pin_and_the_given_one_is_pressed_once() -> None:
    scene = voice_only(pin="4711")
    outcome = scene.play(lambda it: it.watch("1005"), lambda: Network(to_1005=asks_for_pin))
    assert presses(scene) == "4711#"
    assert (outcome.code, outcome.told) == (3, "Wrong PIN")
    assert not any("4711" in text for text in (*scene.screen.said, *map(str, scene.events), repr(scene.options)))


def test_who_gave_no_pin_is_told_what_to_do_and_the_digits_go_out_as_they_are_pressed() -> None:
    scene = voice_only()

    async def asks(network: Network, call: Call, media: str) -> None:
        await show(network, call, media)
        await asyncio.sleep(2.2)
        assert any("if a voice asks for a PIN, press its digits and #" in text for text in scene.screen.said)
        for key in "47#":
            scene.screen.keys.put_nowait(key)
        await asyncio.sleep(0.5)
        call.put(Ended(call.number, 200, "OK", 'Q.850;cause=16;text="Enough"'))

    assert scene.play(lambda it: it.watch("1005"), lambda: Network(to_1005=asks)).code == 0
    assert presses(scene) == "47#"


def test_a_picture_is_no_question() -> None:
    scene = Scene(receive="now", pin="4711")
    scene.media.events.put_nowait(FirstSound(time.monotonic()))
    assert scene.play(lambda it: it.watch("1005"), lambda: Network(to_1005=asks_for_pin)).code == 3
    assert presses(scene) == ""


def test_a_far_end_without_telephone_events_gets_keys_in_info_and_who_presses_them_receives() -> None:
    async def hears(network: Network, call: Call, media: str) -> None:
        await show(network, call, media)
        for key in "5*":
            scene.screen.keys.put_nowait(key)
        await asyncio.sleep(0.4)
        call.put(Ended(call.number, 200, "OK"))

    scene = Scene()
    scene.media.knows_keys = False
    assert scene.play(lambda it: it.watch("1005"), lambda: Network(to_1005=hears)).code == 0
    assert [command.key for command in scene.lines[0].commands if isinstance(command, Press)] == ["5", "*"]
    assert "receive" in scene.media.done


def test_keys_given_beforehand_are_pressed_as_soon_as_the_far_end_takes_our_media() -> None:
    async def hears(network: Network, call: Call, media: str) -> None:
        await show(network, call, media)
        await asyncio.sleep(0.5)
        call.put(Ended(call.number, 200, "OK"))

    scene = Scene(receive="now")
    scene.options = replace(scene.options, keys="12#")
    assert scene.play(lambda it: it.watch("1005"), lambda: Network(to_1005=hears)).code == 0
    assert presses(scene) == "12#"
    assert scene.media.done.index("join") < scene.media.done.index("press 1")


def test_an_abnormal_end_is_told_once_and_without_the_status_of_the_answer() -> None:
    async def dies(network: Network, call: Call, media: str) -> None:
        await show(network, call, media)
        await asyncio.sleep(0.02)
        call.put(Ended(call.number, 200, "OK", 'Q.850;cause=38;text="Server shutting down"'))

    scene = Scene()
    outcome = scene.play(lambda it: it.watch("1005"), lambda: Network(to_1005=dies))
    assert (outcome.code, outcome.told) == (5, "Server shutting down")
    assert not any("Server shutting down" in line for line in scene.screen.said), "the command line says it"


def test_a_refused_call_says_why() -> None:
    async def refuse(network: Network, call: Call, media: str) -> None:
        call.put(Ended(call.number, 480, "1005 is not broadcasting now"))

    outcome = Scene().play(lambda it: it.watch("1005"), lambda: Network(to_1005=refuse))
    assert (outcome.code, outcome.status, outcome.reason) == (3, 480, "1005 is not broadcasting now")


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [(403, 2, "403 no"), (401, 2, "wrong number or password for 1001 (401 no)"), (408, 3, "no")],
)
def test_a_refused_registration_and_a_silent_server_differ(status: int, code: int, told: str) -> None:
    def network() -> Network:
        refusing = Network()
        refusing.refusal = RegistrationRefusedError(status, "no")
        return refusing

    scene = Scene()
    outcome = scene.play(lambda it: it.watch("1005"), network)
    assert (outcome.code, outcome.told) == (code, told)
    assert scene.lines[0].closed == 1


def test_leaving_while_a_silent_server_is_asked_needs_no_patience() -> None:
    def network() -> Network:
        silent = Network()
        silent.silent = True
        return silent

    scene = Scene("q:sq")
    assert scene.play(lambda it: it.broadcast(), network).code == 130
    assert scene.screen.said == ["registering 1001 at 127.0.0.1:5060 ..."]
    assert scene.lines[0].closed == 1


def test_keys_pressed_while_registering_count_in_the_call() -> None:
    scene = Scene("q:s mtpq:q")
    assert scene.play(lambda it: it.broadcast(), lambda: Network(to_8888=go_live, code=code_accepted)).code == 0
    assert "send" in scene.media.done


def test_a_server_that_is_not_back_at_once_is_dialled_until_it_is() -> None:
    """The first line is lost, the second finds nobody to register with, the third is live again."""
    scene = Scene(send="now")

    async def dies(network: Network, call: Call, media: str) -> None:
        await go_live(network, call, media)
        await asyncio.sleep(0.05)
        call.put(Lost("signalling process died"))

    def network() -> Network:
        made = Network(to_8888=stopped if scene.lines else dies, code=code_accepted)
        if len(scene.lines) == 1:
            made.refusal = RegistrationRefusedError(408, "no answer")
        return made

    outcome = scene.play(lambda it: it.broadcast(), network)
    assert (outcome.code, outcome.reason, len(scene.lines)) == (0, "Enough", 3)


def test_a_stack_without_amr_offers_g711_only() -> None:
    async def listen(network: Network, call: Call, media: str) -> None:
        assert "AMR" not in media and "m=audio 5100 RTP/AVP 0 8 101" in media
        call.put(Ended(call.number, 486, "checked"))

    def network() -> Network:
        poor = Network(to_1005=listen)
        poor.amr = False
        return poor

    assert Scene().play(lambda it: it.watch("1005"), network).reason == "checked"


def test_hanging_up_while_it_rings_is_an_interruption() -> None:
    scene = Scene()

    async def rings(network: Network, call: Call, media: str) -> None:
        call.put(Progress(call.number, 180, "Ringing", "", ""))
        scene.screen.keys.put_nowait("q")

    assert scene.play(lambda it: it.watch("1005"), lambda: Network(to_1005=rings)).code == 130


def test_an_incoming_call_rings_is_answered_and_flows_both_ways() -> None:
    scene = Scene("aq:a mtpq:q")
    outcome = scene.play(lambda it: it.take_calls(auto=False, once=True), Network)
    assert outcome.code == 0
    assert [c.status for c in scene.lines[0].commands if isinstance(c, Answer)] == [180, 200]
    assert {"send", "receive"} <= set(scene.media.done)
    assert "1002 is calling" in scene.screen.said


def test_a_code_says_what_the_network_answered() -> None:
    scene = Scene()
    outcome = scene.play(lambda it: it.dial_code("*21*8888#"), lambda: Network(code=code_accepted))
    assert (outcome.code, outcome.reason) == (0, "Forwarding to 8888 active")
    assert scene.events[-1]["event"] == "phone.code_accepted"


def test_reasons_are_read_as_rfc_3326_writes_them() -> None:
    assert reason_text('Q.850;cause=16;text="a \\"live\\" end"') == 'a "live" end'
    assert (reason_text(""), reason_text("SIP;cause=200")) == ("", "")
    assert is_normal("") and is_normal("Q.850 ;cause=16") and is_normal('SIP;cause=200;text="done"')
    assert not is_normal("Q.850;cause=38") and not is_normal("SIP;cause=503")


def test_a_refusal_comes_with_its_remedy() -> None:
    busy, unknown = Outcome(REFUSED_CALL, 486, "Busy Here"), Outcome(REFUSED_CALL, 404, "Not Found")
    assert advised(busy, "1001", "1001", service=False).told.startswith("486 Busy Here: 1001 is your own number")
    assert advised(unknown, "9999", "1001", service=False).told.startswith("404 Not Found: there is no number 9999")
    assert advised(unknown, "9999", "1001", service=True).told.endswith("name one with --service")
    assert advised(busy, "1002", "1001", service=False) == busy
