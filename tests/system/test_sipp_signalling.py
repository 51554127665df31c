"""Registration, refusals, service codes and ordinary calls, as SIPp sees them (sipp_scenarios/)."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from server import Server, account

from sipp_scenarios.calls import dial_code, ordinary_call, register
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account, Load, Sipp, SippError, Traced


def refusal(server: Server, target: str, status: int, caller: str = "1002") -> str:
    """The status line with which a call is refused."""
    with Sipp("watch", server.address, [(account(caller), target)]) as sipp:
        return sipp.received(f"SIP/2.0 {status}").start_line


@contextmanager
def forwarding(server: Server, number: str, target: str) -> Iterator[list[Traced]]:
    """`number` forwards to `target` for a while; gives the messages of the call that set it."""
    yield dial_code(server.address, account(number), f"*21*{target}#")
    dial_code(server.address, account(number), "##21#")


def told(messages: list[Traced]) -> str:
    """The Reason of the BYE that ends a code call: what was done."""
    return next(m for m in messages if m.start_line.startswith("BYE")).header("Reason")


def test_registers_and_withdraws(server: Server) -> None:
    taken = register(server.address, account("1001"))[-1]
    assert "sip:1001@127.0.0.1" in taken.header("Contact")
    assert "expires=" in taken.header("Contact")
    assert register(server.address, account("1001"), expires=0)[-1].start_line == "SIP/2.0 200 OK"


def test_registers_over_tcp(server: Server) -> None:
    assert register(server.tcp, account("1001"), transport="tcp")[-1].start_line == "SIP/2.0 200 OK"


def test_the_challenge_is_one_md5_that_old_phones_understand(server: Server) -> None:
    messages = register(server.address, account("1001"))
    challenge = next(message for message in messages if message.start_line.startswith("SIP/2.0 401"))
    assert challenge.text.count("WWW-Authenticate") == 1
    assert "MD5" in challenge.header("WWW-Authenticate")


@pytest.mark.parametrize("caller", [Account("1001", "wrong"), Account("7777", "anything")])
def test_wrong_passwords_and_unknown_users_are_challenged_alike(server: Server, caller: Account) -> None:
    with pytest.raises(SippError, match=r"SIP/2\.0 40[13]"):
        register(server.address, caller)


def test_a_number_that_does_not_exist_is_404(server: Server) -> None:
    assert refusal(server, "5550000", 404).startswith("SIP/2.0 404")


def test_a_phone_that_is_not_registered_is_480(server: Server) -> None:
    assert refusal(server, "1004", 480).startswith("SIP/2.0 480")


def test_an_ordinary_call_rings_and_is_answered_and_ended(server: Server) -> None:
    seen = [message.start_line for message in ordinary_call(server.address, account("1002"), account("1003"))]
    assert "SIP/2.0 180 Ringing" in seen
    assert seen[-1] == "SIP/2.0 200 OK"


def test_erased_forwarding_leaves_nothing_behind(server: Server) -> None:
    with forwarding(server, "1003", "1004"):
        pass
    seen = ordinary_call(server.address, account("1002"), account("1003"))
    assert not [message for message in seen if message.start_line.startswith("SIP/2.0 181")]


def test_a_code_is_answered_then_ended_with_what_it_did(server: Server) -> None:
    with forwarding(server, "1001", "1005") as seen:
        answer = next(m for m in seen if m.start_line == "SIP/2.0 200 OK" and "INVITE" in m.header("CSeq"))
        assert "a=inactive" in answer.text
        assert "m=audio 9 " in answer.text
        assert told(seen) == 'SIP;cause=200;text="Forwarding to 1005 active"'


def test_all_six_codes_are_answered(server: Server) -> None:
    for code in ("**21*1005#", "*#21#", "#21#", "*21#", "*21*1005#", "##21#"):
        assert "cause=200" in told(dial_code(server.address, account("1001"), code))


def test_a_forwarded_call_rings_where_it_was_sent_to_and_the_caller_is_told(server: Server) -> None:
    with forwarding(server, "1003", "1005"):
        seen = ordinary_call(server.address, account("1002"), account("1005"), dialled="1003")
    forwarded = next(message for message in seen if message.start_line == "SIP/2.0 181 Call Is Being Forwarded")
    assert "cause=302>;index=1.1" in forwarded.text
    assert "SIP/2.0 180 Ringing" in [message.start_line for message in seen]


@pytest.mark.parametrize(
    ("code", "status"),
    [("*21*1005", 484), ("*21*00441234567#", 403), ("*21#", 404)],
    ids=["unfinished", "forbidden target", "nothing registered"],
)
def test_codes_that_cannot_be_done_say_why(server: Server, code: str, status: int) -> None:
    assert refusal(server, code, status).startswith(f"SIP/2.0 {status}")


def test_forwarding_in_a_circle_is_refused(server: Server) -> None:
    with forwarding(server, "1003", "1004"), forwarding(server, "1004", "1003"):
        assert refusal(server, "1003", 482)


@contextmanager
def held_up(process: int, seconds: float) -> Iterator[None]:
    """A process that does not run for a while, as on a busy machine; it goes on at the end of the block or later."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
        time.sleep(seconds)
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize(("scenario", "target"), [("code", "*#21#"), ("refused_480", "1004"), ("register", "")])
def test_a_server_that_is_held_up_answers_what_was_repeated_and_the_phone_goes_on(
    server: Server, scenario: str, target: str
) -> None:
    """The harness: SIPp ends a call at a message it does not expect, such as the challenge for the third time."""
    with ExitStack() as stack:
        with held_up(server.part("as"), 1.8):
            sipp = Sipp(scenario, server.address, [(account("1002"), target)], keys={"expires": "0"})
            phone = stack.enter_context(sipp)
        messages = phone.finished(10)
    assert sum(m.start_line.startswith("SIP/2.0 40") and not m.sent for m in messages) > 1


def test_a_caller_that_is_held_up_acknowledges_again_and_the_call_goes_on(server: Server) -> None:
    """The harness again: the answer is repeated after half a second, and so is the ACK."""
    port, media = free_ports(), (free_ports(), 9)
    register(server.address, account("1003"), local_port=port)
    with (
        Sipp("answer", server.address, [(account("1003"), "")], local_port=port, media_ports=media) as answering,
        Sipp("call", server.address, [(account("1002"), "1003")], load=Load(hold=0.2), media_ports=media) as calling,
    ):
        calling.received("SIP/2.0 180")
        with held_up(calling.process_id, 1.2):
            pass
        calling.finished(10)
        acknowledged = [m for m in answering.finished(5) if m.start_line.startswith("ACK")]
    register(server.address, account("1003"), expires=0, local_port=port)
    assert len(acknowledged) > 1


def test_a_code_that_was_answered_survives_the_server(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        dial_code(server.address, account("1003"), "*21*1005#")
        server.restarted("as", server.kill_part("as"))
        assert told(dial_code(server.address, account("1003"), "*#21#")).endswith('"Forwarding to 1005 active"')
