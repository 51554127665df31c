"""The edge as we ship it: Kamailio between phones of every transport and two application servers."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aioice import stun
from broadcast_world import BroadcastWorld, until
from cluster import EDGE_HOST, Edge
from cluster_world import two_servers
from ua import DOMAIN, OFFER, Phone
from ua import Call as SingleCall

from protocols.net import Address
from protocols.sip.digest import choose_challenge
from protocols.sip.events import ServerTransaction
from protocols.sip.message import Response
from sip_app.transport.tls import trial_certificate
from sipp_scenarios.ports import free_ports

TLS = """[server:default]
method = TLSv1.2+
certificate = {pem}
private_key = {pem}
"""
INSTANCE = "<urn:uuid:00000000-0000-1000-8000-aabbccddeeff>"
OUTBOUND = ("Supported", "path,gruu,outbound")


class WebPhone(Phone):
    """Named as JsSIP names itself: a host nobody can resolve, and `ob` (RFC 5626 section 4.3)."""

    @property
    def contact(self) -> str:
        return f"<sip:{self.number}@phone.invalid;transport={self.transport};ob>"


def flow_contact(phone: Phone, number: int) -> str:
    """What registers a flow."""
    return f'{phone.contact};+sip.instance="{INSTANCE}";reg-id={number}'


class EdgeWorld:
    """Two servers in this process behind a real edge; `ports` by transport."""

    def __init__(self, servers: Sequence[BroadcastWorld], edge: Edge, ports: dict[str, int]) -> None:
        self.servers, self.edge, self.ports = servers, edge, ports
        self.phones: list[Phone] = []

    async def phone(self, number: str, transport: str = "udp") -> Phone:
        """A phone that registered through the edge."""
        phone = Phone(Address(EDGE_HOST, self.ports[transport]), number, transport, domain=DOMAIN)
        await phone.open()
        self.phones.append(phone)
        assert (await phone.register()).status == 200
        return phone

    async def flow(self, transport: str, number: int = 1) -> tuple[Phone, Response]:
        """A flow of a phone of 1005, and how its registration was answered."""
        phone = WebPhone(Address(EDGE_HOST, self.ports[transport]), "1005", transport, domain=DOMAIN)
        await phone.open()
        self.phones.append(phone)
        return phone, await phone.register(contact=flow_contact(phone, number), headers=[OUTBOUND])

    def asked_by(self, challenge: Response) -> BroadcastWorld:
        """The server that challenged."""
        offered = choose_challenge(challenge.credentials("proxy-authenticate"))
        assert offered is not None
        nonce = offered.get("nonce")
        return next(s for s in self.servers if s.server._identity._nonces.issued(nonce, "127.0.0.1"))


@asynccontextmanager
async def behind_the_edge(folder: Path, *more: str) -> AsyncIterator[EdgeWorld]:
    async with two_servers(folder / "servers", edge=True) as servers:
        pem = trial_certificate(folder / "edge.pem", (EDGE_HOST,))
        (folder / "tls.cfg").write_text(TLS.format(pem=pem))
        ports = {"tls": free_ports(), "ws": free_ports()}
        switches = ["WITH_TLS", f"EDGE_TLS=tls:{EDGE_HOST}:{ports['tls']}", f'TLS_CONFIG="{folder}/tls.cfg"']
        switches += ["WITH_WEBSOCKET", f"EDGE_WS=tcp:{EDGE_HOST}:{ports['ws']}"]
        edge = Edge(folder / "kamailio", [str(server.address) for server in servers], *switches, *more)
        await asyncio.to_thread(edge.__enter__)
        ports["wss"] = ports["tls"]  # both at one port
        ports["udp"] = ports["tcp"] = int(edge.address.partition(":")[2])
        world = EdgeWorld(servers, edge, ports)
        try:
            yield world
        finally:
            for phone in world.phones:
                phone.close()
            await asyncio.to_thread(edge.__exit__, None, None, None)


async def challenged(phone: Phone, number: str) -> tuple[SingleCall, Response]:
    """A call that was asked for a password."""
    call = SingleCall(phone, phone.start(phone.build("INVITE", f"sip:{number}@{DOMAIN}", body=OFFER)))
    call.responses = phone.waiting[call.tx]
    return call, await call.final()


def again(phone: Phone, call: SingleCall, challenge: Response) -> SingleCall:
    """The call with the credentials it was asked for."""
    call = SingleCall(phone, phone.start(phone.authorized(call.tx.request, challenge)))
    call.responses = phone.waiting[call.tx]
    return call


async def called(phone: Phone, number: str) -> SingleCall:
    return again(phone, *await challenged(phone, number))


async def answered_and_ended(
    call: SingleCall, caller: Phone, callee: Phone, tx: ServerTransaction, *, callee_hangs_up: bool
) -> None:
    theirs = callee.respond(tx, 200, body=OFFER, content_type="application/sdp")
    await call.answered()
    await callee.acknowledged()
    assert theirs is not None and call.dialog is not None
    from_, to, dialog = (callee, caller, theirs) if callee_hangs_up else (caller, callee, call.dialog)
    asking = asyncio.create_task(from_.ask(dialog.request("BYE")[1]))
    await to.accept("BYE")
    assert (await asking).status == 200


@pytest.mark.parametrize("transport", ["tls", "ws", "wss"])
def test_phones_of_every_transport_talk_through_the_edge(tmp_path: Path, transport: str) -> None:
    """A call each way between a phone of this transport and one of UDP; each side hangs up once."""

    async def scenario() -> None:
        async with behind_the_edge(tmp_path) as world:
            near, far = await world.phone("1004", transport), await world.phone("1005")
            for caller, callee in ((near, far), (far, near)):
                for callee_hangs_up in (False, True):
                    call = await called(caller, callee.number)
                    tx, request = await callee.asked("INVITE")
                    assert request.body == OFFER
                    callee.respond(tx, 180)
                    await answered_and_ended(call, caller, callee, tx, callee_hangs_up=callee_hangs_up)
            assert (await near.register(expires=0)).status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "ws", "wss"])
def test_a_phone_registers_a_flow_and_is_called_back_over_it(tmp_path: Path, transport: str) -> None:
    """RFC 5626. Nothing a web phone writes leads to it: every request finds it by its connection alone."""

    async def scenario() -> None:
        async with behind_the_edge(tmp_path) as world:
            near, answer = await world.flow(transport)
            assert (answer.status, answer.headers.get("Require")) == (200, "outbound")
            assert answer.headers.get("Flow-Timer") == "120", "of the edge, which is the phone's first hop"
            assert ("ob", None) in answer.paths[-1].sip_uri.params
            far = await world.phone("1004")
            for caller, callee in ((near, far), (far, near)):
                for callee_hangs_up in (False, True):
                    call = await called(caller, callee.number)
                    tx, request = await callee.asked("INVITE")
                    assert request.body == OFFER and not request.routes
                    await answered_and_ended(call, caller, callee, tx, callee_hangs_up=callee_hangs_up)
            assert (await near.register(expires=0, contact=flow_contact(near, 1), headers=[OUTBOUND])).status == 200

    asyncio.run(scenario())


def test_a_call_whose_flow_is_gone_takes_the_next_one_at_once(tmp_path: Path) -> None:
    """And is brought to nobody who listens at the address of a flow that is gone."""

    async def scenario() -> None:
        async with behind_the_edge(tmp_path) as world:
            living, _ = await world.flow("ws", 1)
            for number, transport in enumerate(("tcp", "tls", "ws", "wss"), 2):
                phone, answer = await world.flow(transport, number)
                assert len(answer.contacts) == number
                reset = struct.pack("ii", 1, 0)  # no TIME_WAIT: the address is free at once
                phone.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                phone.writer.transport.abort()
            await asyncio.sleep(0.2)
            strangers: list[asyncio.StreamWriter] = []
            gone = world.phones[1].flow.local
            stranger = await asyncio.start_server(lambda _, writer: strangers.append(writer), *gone)
            caller = await world.phone("1004")
            begun = asyncio.get_running_loop().time()
            call = await called(caller, "1005")
            tx, _ = await living.asked("INVITE")
            assert asyncio.get_running_loop().time() - begun < 1
            living.respond(tx, 486)
            assert (await call.final()).status == 486, "the phone's own answer, not that its flow failed"
            assert (await living.register(expires=0, contact=flow_contact(living, 1), headers=[OUTBOUND])).status == 200
            assert (await (await called(caller, "1005")).final()).status == 480
            assert not strangers
            stranger.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("secret", [(), ('FLOW_SECRET="of both edges"',)])
def test_a_flow_outlives_the_edge_that_shares_its_secret(tmp_path: Path, secret: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with behind_the_edge(tmp_path, *secret) as world:
            phone, _ = await world.flow("udp")
            await asyncio.to_thread(world.edge.__exit__, None, None, None)
            await asyncio.to_thread(world.edge.__enter__)
            call = await called(await world.phone("1004"), "1005")
            if secret:
                tx, _ = await phone.asked("INVITE")
                phone.respond(tx, 486)
            assert (await call.final()).status == (486 if secret else 480)

    asyncio.run(scenario())


def test_the_edge_answers_keep_alives(tmp_path: Path) -> None:
    """CRLF on connections, STUN by UDP (RFC 5626 section 4.4)."""

    async def scenario() -> None:
        async with behind_the_edge(tmp_path) as world:
            wire, _ = await world.flow("tcp", 1)
            wire.send_raw(b"\r\n\r\n")
            await until(lambda: wire.pongs == 1)
            answers: asyncio.Queue[bytes] = asyncio.Queue()
            phone, _ = await world.flow("udp", 2)
            phone.datagram_received = lambda data, addr: answers.put_nowait(data)  # type: ignore[method-assign]
            phone.send_raw(bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST)))
            answer = stun.parse_message(await asyncio.wait_for(answers.get(), 3))
            assert answer.attributes["XOR-MAPPED-ADDRESS"] == tuple(phone.flow.local)

    asyncio.run(scenario())


def test_a_forked_call_rings_both_phones_and_stops_the_one_that_was_slower(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with behind_the_edge(tmp_path) as world:
            caller = await world.phone("1004")
            desk, pocket = [await world.phone("1005", transport) for transport in ("udp", "tcp")]
            call = await called(caller, "1005")
            rings = {}
            for tag, phone in (("desk", desk), ("pocket", pocket)):
                rings[tag], _ = await phone.asked("INVITE")
                phone.respond(rings[tag], 180, tag=tag)
            seen = {(await call.until(180)).to.tag for _ in rings}
            assert seen == {"desk", "pocket"}, "two early dialogs"
            theirs = pocket.respond(rings["pocket"], 200, tag="pocket", body=OFFER, content_type="application/sdp")
            answer = await call.answered()
            assert answer.to.tag == "pocket" and theirs is not None
            await pocket.acknowledged()
            await until(lambda: bool(desk.cancelled))
            assert desk.cancelled == [rings["desk"]] and not pocket.cancelled and desk.acks.empty()
            asking = asyncio.create_task(pocket.ask(theirs.request("BYE")[1]))
            await caller.accept("BYE")
            assert (await asking).status == 200

    asyncio.run(scenario())


def test_a_call_moved_to_the_other_server_is_asked_once_more_and_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with behind_the_edge(tmp_path) as world:
            caller, callee = await world.phone("1004"), await world.phone("1005")
            call, first = await challenged(caller, "1005")
            asking = world.asked_by(first)
            await asking.kill_server()
            call = again(caller, call, first)
            second = await call.final()
            assert second.status == 407 and "stale=true" in (second.headers.get("Proxy-Authenticate") or "").lower()
            assert world.asked_by(second) is not asking
            call = again(caller, call, second)
            tx, _ = await callee.asked("INVITE")
            callee.respond(tx, 486)
            assert (await call.final()).status == 486, "no third question"

    asyncio.run(scenario())


def test_with_both_servers_silent_the_edge_says_so(tmp_path: Path) -> None:
    """At first after two seconds for each; once they are known to be silent, at once."""

    async def scenario() -> None:
        silent = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for one in silent:
            one.bind(("127.0.0.1", 0))
        edge = Edge(tmp_path / "kamailio", [f"127.0.0.1:{one.getsockname()[1]}" for one in silent])
        edge.serving = b"SIP/2.0 503"
        begun = asyncio.get_running_loop().time()
        await asyncio.to_thread(edge.__enter__)
        assert 2 < asyncio.get_running_loop().time() - begun < 8
        try:
            host, _, port = edge.address.partition(":")
            phone = Phone(Address(host, int(port)), "1004", domain=DOMAIN)
            await phone.open()
            begun = asyncio.get_running_loop().time()
            for method in ("INVITE", "REGISTER"):
                refusal = await phone.ask(phone.build(method, f"sip:1005@{DOMAIN}"))
                assert (refusal.status, refusal.reason) == (503, "No Application Server")
                assert refusal.headers.get("Retry-After") == "5"
            assert asyncio.get_running_loop().time() - begun < 1
            phone.close()
        finally:
            await asyncio.to_thread(edge.__exit__, None, None, None)
            for one in silent:
                one.close()

    asyncio.run(scenario())
