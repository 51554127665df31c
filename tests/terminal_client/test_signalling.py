"""The phone's line against SIPp: what a user of `Line` sees of registrations, calls, and a child that dies."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from protocols.net import Address
from terminal_client import signalling
from terminal_client.messages import Answered, Ended, Progress, Reoffered
from terminal_client.signalling import (
    Call,
    CallUpdate,
    Line,
    LineOptions,
    Lost,
    RegistrationRefusedError,
    SignallingLostError,
    open_line,
)

SCENARIOS = Path(__file__).parent / "sipp"
SIPP = shutil.which("sipp")
MEDIA = (
    "m=audio 5100 RTP/AVP 96 0\r\nc=IN IP4 127.0.0.1\r\na=rtpmap:96 AMR/8000\r\na=fmtp:96 octet-align=1\r\n"
    "a=ice-ufrag:uuuu\r\na=ice-pwd:pppppppppppppppppppppp\r\na={d}\r\n"
    "m=video 5102 RTP/AVP 99\r\nc=IN IP4 127.0.0.1\r\na=rtpmap:99 H264/90000\r\n"
    "a=fmtp:99 profile-level-id=42e01f;packetization-mode=1\r\n"
    "a=ice-ufrag:vvvv\r\na=ice-pwd:qqqqqqqqqqqqqqqqqqqqqq\r\na={d}\r\n"
)
SENDING, WATCHING, BOTH = (MEDIA.format(d=d) for d in ("sendonly", "recvonly", "sendrecv"))

if SIPP is None and os.environ.get("CI") != "true":
    pytest.skip("sipp is not installed (apt-get install sip-tester)", allow_module_level=True)


def free_port() -> int:
    """A port free for UDP and TCP a moment ago."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return int(tcp.getsockname()[1])


class Peer:
    """A SIPp process playing one scenario."""

    def __init__(self, scenario: str, folder: Path, *more: str, calls: int = 1, within: int | None = 20) -> None:
        """`within` are the seconds its scenario may take, None for one that serves until it is stopped."""
        self.port, self.folder = free_port(), folder
        folder.mkdir(exist_ok=True)
        self.messages = folder / f"{scenario}.log"
        arguments = [
            *(SIPP or "sipp", "-sf", str(SCENARIOS / f"{scenario}.xml"), "-i", "127.0.0.1", "-p", str(self.port)),
            *("-m", str(calls), "-nostdin", "-deadcall_wait", "0"),
            *(("-timeout", str(within), "-timeout_error") if within else ()),
            # On a busy machine the 401 comes late, is repeated, and so is its ACK, which must not end the call.
            *("-default_behaviors", "all,-abortunexp"),
            *("-trace_msg", "-message_file", str(self.messages), *more),
        ]
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder, text=True
        )
        while self.process.poll() is None and not self._listening("tcp" if "t1" in more else "udp"):
            time.sleep(0.01)
        assert self.process.poll() is None, self.process.communicate()[1]

    def _listening(self, transport: str) -> bool:
        table = Path(f"/proc/net/{transport}").read_text()
        return f"0100007F:{self.port:04X} " in table

    def finished(self) -> None:
        """The scenario went as written."""
        _, complaint = self.process.communicate(timeout=20)
        log = self.messages.read_text() if self.messages.exists() else ""
        assert self.process.returncode == 0, f"{complaint}\n{log}"

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def registrar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """A registrar that challenges everybody and lets 1001 in with the password `secret`."""
    peer = Peer("registrar", tmp_path_factory.mktemp("registrar"), calls=1000, within=None)
    yield peer
    peer.stop()


def options(port: int, password: str = "secret", transport: str = "udp") -> LineOptions:
    return LineOptions(Address("127.0.0.1", port), "1001", password, transport="tcp" if transport == "tcp" else "udp")


async def registered(registrar: Peer) -> Line:
    line = await open_line(options(registrar.port))
    await line.register()
    return line


async def soon(call: Call, kind: type[CallUpdate]) -> CallUpdate:
    """The call's next update of that kind; an earlier end is a failure that says what came instead."""
    heard: list[CallUpdate] = []
    try:
        async with asyncio.timeout(15):
            while not (heard and isinstance(heard[-1], kind)):
                assert not (heard and isinstance(heard[-1], Ended | Lost)), f"no {kind.__name__}, but {heard}"
                heard.append(await call.update())
    except TimeoutError:
        pytest.fail(f"no {kind.__name__} within 15 s, but {heard}; the stack complains of {list(call.line.troubles)}")
    return heard[-1]


def test_registers_with_digest_and_deregisters_at_the_end(registrar: Peer) -> None:
    """The registrar sees the password proved, our join feature tag, and at the end a binding of zero seconds."""

    async def story() -> None:
        line = await open_line(options(registrar.port))
        registration = await line.register()
        assert (registration.status, registration.expires) == (200, 300)
        assert (line.warning, line.amr) == ("", True)
        await line.close()

    asyncio.run(story())
    log = registrar.messages.read_text()
    assert "+g.dialcast.join" in log
    assert "Expires: 0" in log


class LateRegistrar(asyncio.DatagramProtocol):
    """Keeps its answers back until it is awake, and notes for how long each REGISTER was to bind."""

    def __init__(self) -> None:
        self.expires: list[str] = []
        self._awake = False
        self._kept: list[tuple[bytes, tuple[str, int]]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        head = dict(line.split(": ", 1) for line in data.decode().splitlines()[1:] if ": " in line)
        same = "\r\n".join(f"{name}: {head[name]}" for name in ("Via", "From", "To", "Call-ID", "CSeq", "Contact"))
        answer = f"SIP/2.0 200 OK\r\n{same}\r\nExpires: {head['Expires']}\r\nContent-Length: 0\r\n\r\n"
        self.expires.append(head["Expires"])
        self._kept.append((answer.encode(), address))
        if self._awake:
            self.wake()

    def wake(self) -> None:
        self._awake = True
        for answer, address in self._kept:
            self._transport.sendto(answer, address)
        self._kept.clear()


async def left_before_the_answer(monkeypatch: pytest.MonkeyPatch, *, answers: bool) -> tuple[list[str], float]:
    """A phone that gives up early: the Expires that the registrar saw, and how long leaving took then, seconds."""
    monkeypatch.setattr(signalling, "REGISTER_SECONDS", 0.3)
    loop = asyncio.get_running_loop()
    transport, registrar = await loop.create_datagram_endpoint(LateRegistrar, local_addr=("127.0.0.1", 0))
    line = await open_line(options(transport.get_extra_info("sockname")[1]))
    with pytest.raises(RegistrationRefusedError, match=r"is `dialcast up` running there\?"):
        await line.register()
    gave_up = loop.time()
    if answers:
        registrar.wake()
    await line.close()
    transport.close()
    return registrar.expires, loop.time() - gave_up


async def test_a_registration_that_succeeds_too_late_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    expires, _ = await left_before_the_answer(monkeypatch, answers=True)
    assert (expires[0], expires[-1]) == ("300", "0")


async def test_a_silent_registrar_is_not_waited_for_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    expires, leaving = await left_before_the_answer(monkeypatch, answers=False)
    assert "0" not in expires and leaving < 1.5


def test_a_wrong_password_is_a_refusal_with_status_and_reason(registrar: Peer) -> None:
    async def story() -> None:
        line = await open_line(options(registrar.port, password="guess"))
        with pytest.raises(RegistrationRefusedError) as refusal:
            await line.register()
        assert refusal.value.status == 403
        await line.close()

    asyncio.run(story())


def test_going_live_hears_the_answer_in_a_reliable_183_and_the_end_with_its_reason(
    registrar: Peer, tmp_path: Path
) -> None:
    peer = Peer("go_live", tmp_path)

    async def story() -> None:
        line = await registered(registrar)
        call = line.dial(f"sip:8888@127.0.0.1:{peer.port}", SENDING)
        progress = await soon(call, Progress)
        assert isinstance(progress, Progress) and progress.status == 183
        assert "a=ice-ufrag:bbbb" in progress.sdp and "isfocus" in progress.contact
        answered = await soon(call, Answered)
        assert isinstance(answered, Answered) and answered.sdp == ""
        ended = await soon(call, Ended)
        assert isinstance(ended, Ended) and ended.why == 'Q.850;cause=16;text="Broadcast ended"'
        await line.close()

    asyncio.run(story())
    peer.finished()
    log = peer.messages.read_text()
    assert "RAck: 7" in log and "100rel" in log and "+g.dialcast.join" in log and "a=ice-pwd:q" in log


def test_watching_passes_the_challenge_gets_the_answer_in_the_200_and_hangs_up(registrar: Peer, tmp_path: Path) -> None:
    peer = Peer("watch", tmp_path)

    async def story() -> None:
        line = await registered(registrar)
        call = line.dial(f"sip:1005@127.0.0.1:{peer.port}", WATCHING)
        progress = await soon(call, Progress)
        assert isinstance(progress, Progress) and progress.status == 181
        answered = await soon(call, Answered)
        assert isinstance(answered, Answered) and "m=video 21002" in answered.sdp
        call.hang_up()
        await soon(call, Ended)
        await line.close()

    asyncio.run(story())
    peer.finished()


def test_a_key_goes_out_in_info_and_no_log_shows_it(
    registrar: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = Peer("keys", tmp_path)

    async def story() -> None:
        line = await open_line(replace(options(registrar.port), debug=True))
        await line.register()
        call = line.dial(f"sip:1005@127.0.0.1:{peer.port}", WATCHING)
        await soon(call, Answered)
        call.press("7")
        await asyncio.sleep(0.5)
        call.hang_up()
        await soon(call, Ended)
        await line.close()

    asyncio.run(story())
    peer.finished()
    sent = peer.messages.read_text()
    assert "Content-Type: application/dtmf-relay" in sent
    assert "Signal=7" in sent
    shown = capsys.readouterr().err
    assert "Signal=?" in shown
    assert "Signal=7" not in shown


def test_works_over_tcp(tmp_path: Path) -> None:
    """Registration and call, each over its own TCP connection to the peer."""
    registrar, peer = Peer("registrar", tmp_path / "r", "-t", "t1", calls=9), Peer("watch", tmp_path / "w", "-t", "t1")

    async def story() -> None:
        line = await open_line(options(registrar.port, transport="tcp"))
        assert (await line.register()).status == 200
        call = line.dial(f"sip:1005@127.0.0.1:{peer.port};transport=tcp", WATCHING)
        await soon(call, Answered)
        call.hang_up()
        await soon(call, Ended)
        await line.close()

    asyncio.run(story())
    peer.finished()
    registrar.stop()


def test_a_refusal_carries_the_words_a_person_understands(registrar: Peer, tmp_path: Path) -> None:
    peer = Peer("not_live", tmp_path)

    async def story() -> None:
        line = await registered(registrar)
        ended = await soon(line.dial(f"sip:1005@127.0.0.1:{peer.port}", WATCHING), Ended)
        assert isinstance(ended, Ended)
        assert (ended.status, ended.reason) == (480, "1005 is not broadcasting now")
        await line.close()

    asyncio.run(story())
    peer.finished()


def test_a_peer_may_hold_the_call_with_a_new_offer(registrar: Peer, tmp_path: Path) -> None:
    """The answer keeps our ports and turns both m-lines inactive (the scenario checks it)."""
    peer = Peer("hold", tmp_path)

    async def story() -> None:
        line = await registered(registrar)
        call = line.dial(f"sip:1005@127.0.0.1:{peer.port}", WATCHING)
        await soon(call, Answered)
        held = await soon(call, Reoffered)
        assert isinstance(held, Reoffered) and "a=inactive" in held.sdp
        ended = await soon(call, Ended)
        assert isinstance(ended, Ended) and "stopped by the operator" in ended.why
        await line.close()

    asyncio.run(story())
    peer.finished()


def test_hanging_up_before_the_answer_cancels(registrar: Peer, tmp_path: Path) -> None:
    peer = Peer("cancelled", tmp_path)

    async def story() -> None:
        line = await registered(registrar)
        call = line.dial(f"sip:1005@127.0.0.1:{peer.port}", WATCHING)
        await soon(call, Progress)
        call.hang_up()
        ended = await soon(call, Ended)
        assert isinstance(ended, Ended) and ended.status == 487
        await line.close()

    asyncio.run(story())
    peer.finished()


async def test_a_peer_that_is_slow_to_challenge_is_still_called(registrar: Peer, tmp_path: Path) -> None:
    """The INVITE was repeated meanwhile, so challenge and ACK come twice; the call goes on."""
    peer = Peer("watch", tmp_path)
    line = await registered(registrar)
    peer.process.send_signal(signal.SIGSTOP)
    call = line.dial(f"sip:1005@127.0.0.1:{peer.port}", WATCHING)
    await asyncio.sleep(0.7)  # T1 is 0.5 s
    peer.process.send_signal(signal.SIGCONT)
    await soon(call, Answered)
    call.hang_up()
    await soon(call, Ended)
    await line.close()
    peer.stop()


def test_a_code_call_runs_beside_the_call_that_is_up(registrar: Peer, tmp_path: Path) -> None:
    """`*21*8888#` goes out as one INVITE and comes back as success in the BYE's Reason; the first call stays."""
    watching, code = Peer("watch", tmp_path / "w"), Peer("code", tmp_path / "c")

    async def story() -> None:
        line = await registered(registrar)
        first = line.dial(f"sip:1005@127.0.0.1:{watching.port}", WATCHING)
        await soon(first, Answered)
        second = line.dial(f"sip:*21*8888%23@127.0.0.1:{code.port}", SENDING)
        await soon(second, Answered)
        ended = await soon(second, Ended)
        assert isinstance(ended, Ended) and "Forwarding to 8888 active" in ended.why
        assert not first.over
        first.hang_up()
        await soon(first, Ended)
        await line.close()

    asyncio.run(story())
    watching.finished()
    code.finished()
    assert "INVITE sip:*21*8888%23@" in code.messages.read_text()


def test_an_incoming_call_is_answered_with_sound_and_picture(registrar: Peer, tmp_path: Path) -> None:
    async def story() -> None:
        line = await registered(registrar)
        line.listen(BOTH)
        peer = Peer("caller", tmp_path, f"127.0.0.1:{line.address.port}")
        async with asyncio.timeout(10):
            call = await line.incoming.get()
        assert "1002" in call.caller and "m=video" in call.offer
        call.answer(180)
        call.answer(200)
        await soon(call, Answered)
        await soon(call, Ended)
        await line.close()
        peer.finished()

    asyncio.run(story())


def test_a_killed_child_is_one_clear_event(registrar: Peer, tmp_path: Path) -> None:
    """The call says that it is lost, the line refuses further work the same way, and nothing else happens."""
    peer = Peer("watch", tmp_path)

    async def story() -> None:
        line = await registered(registrar)
        call = line.dial(f"sip:1005@127.0.0.1:{peer.port}", WATCHING)
        await soon(call, Answered)
        line.kill()
        lost = await soon(call, Lost)
        assert isinstance(lost, Lost) and "died" in lost.detail
        assert isinstance(await line.dial("sip:x@127.0.0.1", WATCHING).update(), Lost)
        with pytest.raises(SignallingLostError):
            await line.register()
        await line.close()

    asyncio.run(story())
    peer.stop()


def test_a_child_that_cannot_start_is_said_so() -> None:
    """192.0.2.1 (documentation) is no address of this machine: PJSUA cannot bind it."""

    async def story() -> None:
        with pytest.raises(SignallingLostError, match=r"cannot start on 192\.0\.2\.1"):
            await open_line(LineOptions(Address("127.0.0.1", 5060), "1", "", local_host="192.0.2.1"))

    asyncio.run(story())
