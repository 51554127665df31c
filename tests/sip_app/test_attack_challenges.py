"""INVITEs from forged sources: what they make the server send and hold."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ua import DOMAIN, running

from protocols.net import Address, Flow
from protocols.sip.message import Headers, Request, make_response, parse_message
from provisioning.config import SipConfig
from sip_app.access.admission import Admission

OFFERED = f'Digest realm="{DOMAIN}", nonce="19f-abcdef-0123456789abcdef0123", algorithm=MD5, qop="auth"'


class Stranger(asyncio.DatagramProtocol):
    """Somebody without an account, who answers nothing."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.wire = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard.append(data)

    def invite(self, number: int) -> None:
        self._send("INVITE", number, "")

    def acknowledge(self, number: int, tag: str) -> None:
        self._send("ACK", number, f";tag={tag}")

    def _send(self, method: str, number: int, tag: str) -> None:
        host, port = self.wire.get_extra_info("sockname")
        lines = [
            f"{method} sip:1002@{DOMAIN} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:{port};rport;branch=z9hG4bKforged{number}",
            f"From: <sip:1001@{DOMAIN}>;tag=forged",
            f"To: <sip:1002@{DOMAIN}>{tag}",
            f"Call-ID: forged{number}",
            f"CSeq: 1 {method}",
            f"Contact: <sip:1001@{host}:{port}>",
            "Content-Length: 0",
        ]
        self.wire.sendto("\r\n".join([*lines, "", ""]).encode())


def test_a_challenge_is_sent_once_as_its_receiver_may_have_asked_for_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            loop = asyncio.get_running_loop()
            wire, stranger = await loop.create_datagram_endpoint(Stranger, remote_addr=world.address)
            stranger.invite(1)
            await asyncio.sleep(1.0)  # several retransmissions with the timers of this server
            assert [answer.split(b"\r\n")[0] for answer in stranger.heard] == [
                b"SIP/2.0 407 Proxy Authentication Required"
            ]
            assert world.server.endpoint.transactions == 0
            stranger.invite(1)  # the challenge was lost: whoever asks again is asked again
            await asyncio.sleep(0.2)
            assert len(stranger.heard) == 2
            wire.close()

    asyncio.run(scenario())


def test_forged_invites_take_no_place_from_those_who_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_transactions=100) as world:
            loop = asyncio.get_running_loop()
            wire, stranger = await loop.create_datagram_endpoint(Stranger, remote_addr=world.address)
            for number in range(300):
                stranger.invite(number)
            await asyncio.sleep(0.3)
            callee = await world.phone("1002")
            caller = await world.phone("1001")
            call = await caller.dial("1002")
            tx, _ = await callee.asked("INVITE")
            callee.respond(tx, 486)
            assert (await call.final()).status == 486
            wire.close()

    asyncio.run(scenario())


def test_the_acknowledgement_of_a_challenge_goes_no_further_and_its_tag_stays_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            passed: list[str] = []
            world.server.on_ack = lambda request, flow: passed.append(request.to.tag)  # type: ignore[method-assign]
            loop = asyncio.get_running_loop()
            wire, stranger = await loop.create_datagram_endpoint(Stranger, remote_addr=world.address)
            stranger.invite(1)
            stranger.invite(1)
            await asyncio.sleep(0.2)
            tags = [parse_message(answer).to.tag for answer in stranger.heard]
            assert len(tags) == 2
            assert stranger.heard[0] == stranger.heard[1], "a phone that repeats itself would be asked twice"
            for tag in (tags[0], "0" * len(tags[0])):
                stranger.acknowledge(1, tag)
            await asyncio.sleep(0.2)
            assert passed == ["0" * len(tags[0])]
            wire.close()

    asyncio.run(scenario())


def test_large_requests_of_strangers_are_held_up_to_a_total(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_transaction_bytes=1_000_000) as world:
            loop = asyncio.get_running_loop()
            wire, _ = await loop.create_datagram_endpoint(Stranger, remote_addr=world.address)
            vias = "".join(f"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{number}{'y' * 90}\r\n" for number in range(200))
            for number in range(100):
                first = f"Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKlarge{number}\r\n"
                rest = f"From: <sip:a@b>;tag=1\r\nTo: <sip:{DOMAIN}>\r\nCall-ID: {number}\r\nCSeq: 1 OPTIONS\r\n\r\n"
                wire.sendto(f"OPTIONS sip:{DOMAIN} SIP/2.0\r\n{first}{vias}{rest}".encode())
                await asyncio.sleep(0.002)
            assert 1 < world.server.endpoint.transactions <= 1_000_000 // (200 * 130)
            assert (await (await world.phone("1001", register=False)).register()).status == 200
            wire.close()

    asyncio.run(scenario())


def test_a_nonce_of_ones_own_making_tells_nothing_of_passwords_and_has_nobody_looked_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            looked_up: list[str] = []
            find = world.store.credentials.find

            async def counted(aor: str) -> Any:
                looked_up.append(aor)
                return await find(aor)

            world.store.credentials.find = counted  # type: ignore[method-assign]  # to see what is asked of the store
            answers = []
            for password in ("dialcast-1001", "wrong"):
                phone = await world.phone("1001", register=False, password=password)
                request = phone.build("REGISTER", f"sip:{DOMAIN}", to=f"<sip:1001@{DOMAIN}>")
                offered = make_response(request, 401, headers=[("WWW-Authenticate", OFFERED)])
                answer = await phone.ask(phone.authorized(request, offered))
                answers.append((answer.status, answer.credentials("www-authenticate")[0].get("stale")))
            assert answers == [(401, "true")] * 2
            assert not looked_up

    asyncio.run(scenario())


@pytest.mark.parametrize("peers", ["trusted_peers", "edge_proxies"])
def test_a_via_that_hides_its_sender_behind_a_proxy_is_refused_and_no_error_here(peers: str) -> None:
    admission = Admission(SipConfig.model_validate({peers: ["127.0.0.1/32"]}))
    vias = [("Via", f"SIP/2.0/UDP 127.0.0.{host};branch=z9hG4bK1;rport=99999999") for host in (1, 2)]
    lines = [*vias, ("From", "<sip:a@b>;tag=1"), ("To", "<sip:b@b>"), ("Call-ID", "1"), ("CSeq", "1 OPTIONS")]
    flow = Flow("udp", Address("127.0.0.1", 5060), Address("127.0.0.1", 5070))
    assert admission.admit(Request("OPTIONS", "sip:b", Headers(lines)), flow, 1.0) is None
