"""Calls to the service number: handed to the broadcast service with who calls and who diverted, run by it, ended."""

import asyncio
from pathlib import Path

from ua import DOMAIN, OFFER, QUICK, Phone, World, running

from protocols.net import Address
from protocols.records import DiversionRule, DiversionRules, Overlay
from protocols.sip.message import Request
from provisioning.config import Config, ServicePolicy, SipConfig
from sip_app.calls.incoming import CallGone, Dialog, IncomingCall, OverlayOutcome, Rejected

ANSWER = OFFER.replace(b"40000", b"50000").replace(b"40002", b"50002")


class Service:
    """Answers every call; what it was asked is in `asked`."""

    def __init__(self, *, reliable: bool = False) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.dialogs: asyncio.Queue[Dialog] = asyncio.Queue()
        self.calls: list[IncomingCall] = []
        self.live: set[str] = set()
        self.just_ended: set[str] = set()
        self.overlays: list[str] = []
        self.guests = False
        self.reliable = reliable
        self.hold = asyncio.Event()
        self.hold.set()
        self.ends: list[str] = []
        self.answers: list[bytes] = []
        self.gone = False

    async def go_live(self, call: IncomingCall) -> None:
        await self._take("live", call)

    async def watch(self, call: IncomingCall, channel: str) -> None:
        await self._take("watch", call)

    async def _take(self, what: str, call: IncomingCall) -> None:
        self.asked.append((what, call.caller.aor, call.diverted_by))
        self.calls.append(call)
        try:
            if self.reliable:
                await call.progress(183, body=ANSWER, reliable=True)
            await self.hold.wait()
            dialog = await call.answer(body=b"" if self.reliable else ANSWER, app={"group": "g", "leg": "1"})
        except CallGone:
            self.gone = True
            return
        dialog.handler = self
        self.dialogs.put_nowait(dialog)

    async def open_to_guests(self, channel: str) -> bool:
        return self.guests

    async def holder(self, channel: str) -> None:
        return None

    async def activate_overlay(self, channel: str) -> OverlayOutcome:
        if channel in self.just_ended:
            return "too early or too late"
        if channel not in self.live:
            return "no broadcast"
        self.overlays.append(channel)
        return "active"

    async def on_reinvite(self, offer: bytes) -> bytes:
        if b"refuse" in offer:
            raise Rejected(488, "Not That")
        return ANSWER

    async def on_answer(self, answer: bytes) -> None:
        self.answers.append(answer)

    async def on_message(self, request: Request) -> None:
        raise Rejected(405)

    async def on_info(self, request: Request) -> None:
        self.asked.append(("info", request.body.decode(), None))

    def on_ended(self, cause: str) -> None:
        self.ends.append(cause)


async def live(world: World, service: Service, transport: str = "udp"):  # type: ignore[no-untyped-def]
    phone = await world.phone("1001", transport=transport)
    call = await phone.dial("8888")
    await call.answered()
    dialog = await service.dialogs.get()
    await asyncio.wait_for(dialog.acked.wait(), 2)
    return phone, call, dialog


def test_dialling_the_service_number_goes_live_and_hanging_up_ends_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            _, call, dialog = await live(world, service)
            assert service.asked == [("live", f"1001@{DOMAIN}", None)]
            assert [stored.dialog_id for stored in await world.store.dialogs.owned_by("as-test")] == [dialog.id]
            assert (await call.send("BYE")).status == 200
            assert service.ends == ["bye"]
            await asyncio.sleep(0.1)
            assert await world.store.dialogs.owned_by("as-test") == []

    asyncio.run(scenario())


def test_a_diverted_call_watches_whoever_diverted_it_and_is_told_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            viewer = await world.phone("1002")
            await world.store.diversions.set_overlay(f"1001@{DOMAIN}", Overlay("8888", f"1001@{DOMAIN}", 1))
            call = await viewer.dial("1001")
            told = await call.until(181)
            answer = await call.answered()
            assert told.to.tag == answer.to.tag
            assert "rseq" not in told.headers
            assert [(entry.index, entry.cause) for entry in told.history] == [("1", None), ("1.1", 302)]
            assert service.asked == [("watch", f"1002@{DOMAIN}", f"1001@{DOMAIN}")]

    asyncio.run(scenario())


def test_a_caller_that_requires_100rel_gets_the_181_reliably(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            viewer = await world.phone("1002")
            await world.store.diversions.set_overlay(f"1001@{DOMAIN}", Overlay("8888", f"1001@{DOMAIN}", 1))
            call = await viewer.dial("1001", headers=[("Require", "100rel")])
            told = await call.until(181)
            assert told.rseq is not None and service.asked == []
            assert (await call.prack(told)).status == 200
            await call.answered()

    asyncio.run(scenario())


def test_the_reliable_183_comes_before_the_200_and_a_second_prack_is_wrong(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service(reliable=True)
        async with running(tmp_path, service) as world:
            phone = await world.phone("1001")
            call = await phone.dial("8888", headers=[("Supported", "100rel")])
            progress = await call.until(183)
            assert progress.body == ANSWER and "100rel" in progress.required
            assert (await call.prack(progress)).status == 200
            assert (await call.prack(progress)).status == 481
            answer = await call.answered()
            assert answer.body == b""

    asyncio.run(scenario())


def test_hanging_up_before_the_answer_tells_the_service(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        service.hold.clear()
        async with running(tmp_path, service) as world:
            phone = await world.phone("1001")
            call = await phone.dial("8888")
            await call.until(100)
            call.cancel()
            assert (await call.final()).status == 487
            assert service.calls[0].cancelled
            service.hold.set()
            await asyncio.sleep(0.1)
            assert service.gone and service.dialogs.empty()
            assert await world.store.dialogs.owned_by("as-test") == []

    asyncio.run(scenario())


def test_the_service_hangs_up_with_a_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            phone, _, dialog = await live(world, service)
            ending = asyncio.create_task(dialog.bye('Q.850;cause=16;text="Broadcast ended"'))
            bye = await phone.accept("BYE")
            assert bye.headers.get("Reason") == 'Q.850;cause=16;text="Broadcast ended"'
            await ending
            await dialog.bye()
            assert service.ends == ["local"] and dialog.ended.is_set()

    asyncio.run(scenario())


def test_within_a_call_the_phone_may_reoffer_inform_and_ask(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            phone, call, dialog = await live(world, service)
            again = await call.send("INVITE", body=OFFER, content_type="application/sdp")
            assert (again.status, again.body) == (200, ANSWER)
            phone.layer.send_stateless(call.dialog.ack(call.dialog.local_cseq), phone.flow)
            phone.pump()
            assert (await call.send("UPDATE", body=b"refuse", content_type="application/sdp")).status == 488
            assert (await call.send("INFO", body=b"dtmf", content_type="text/plain")).status == 200
            assert ("info", "dtmf", None) in service.asked
            assert (await call.send("OPTIONS")).status == 200
            assert (await call.send("REFER")).status == 405
            assert not dialog.ended.is_set()

    asyncio.run(scenario())


def test_an_overtaken_request_in_a_call_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            phone, call, _ = await live(world, service)
            _, late = call.dialog.request("OPTIONS")
            assert (await call.send("OPTIONS")).status == 200
            assert (await phone.ask(late)).status == 500

    asyncio.run(scenario())


def test_probing_tells_whether_the_phone_still_knows_the_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            phone, _, dialog = await live(world, service)
            for status, alive in ((200, True), (481, False)):
                probing = asyncio.create_task(dialog.probe(1.0))
                tx, _ = await phone.asked("OPTIONS")
                phone.respond(tx, status)
                assert await probing is alive
            assert await dialog.probe(0.2) is False

    asyncio.run(scenario())


def test_a_stranger_cannot_end_somebody_elses_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            _, call, dialog = await live(world, service)
            stranger = await world.phone("1002", register=False, host="127.0.0.3")
            _, bye = call.dialog.request("BYE")
            challenged = await stranger.ask(bye)
            assert challenged.status == 407
            assert (await stranger.ask(stranger.authorized(bye, challenged))).status == 403
            assert not dialog.ended.is_set()

    asyncio.run(scenario())


def test_a_merged_request_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        service.hold.clear()
        async with running(tmp_path, service, trusted_peers=("127.0.0.1",)) as world:
            phone = await world.phone("1001", register=False)
            request = phone.build("INVITE", f"sip:8888@{DOMAIN}", body=OFFER)
            phone.start(request)
            await asyncio.sleep(0.05)
            assert (await phone.ask(request)).status == 482
            service.hold.set()

    asyncio.run(scenario())


def test_guests_may_watch_only_where_that_is_allowed(tmp_path: Path) -> None:
    async def scenario() -> None:
        for guests, status in ((False, 407), (True, 200)):
            service = Service()
            service.guests = guests
            config = Config(
                data_dir=tmp_path / str(guests),
                sip=SipConfig(port=0),
                services=(ServicePolicy(number="8888", viewers="everyone" if guests else "authenticated"),),
            )
            async with running(tmp_path, service, config=config) as world:
                await world.store.diversions.set_overlay(f"1001@{DOMAIN}", Overlay("8888", f"1001@{DOMAIN}", 1))
                guest = await world.phone("guest", register=False)
                invite = guest.build("INVITE", f"sip:1001@{DOMAIN}", body=OFFER, from_="<sip:me@example.org>")
                assert (await guest.ask(invite)).status == status
                for uri in ("8888", "1002", "*%2321%23"):
                    other = guest.build("INVITE", f"sip:{uri}@{DOMAIN}", body=OFFER, from_="<sip:me@example.org>")
                    assert (await guest.ask(other)).status in (403, 407)

    asyncio.run(scenario())


def test_what_the_service_number_does_not_understand(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, Service()) as world:
            phone = await world.phone("1001")
            message = await phone.request("MESSAGE", f"sip:8888@{DOMAIN}", body=b"hi", content_type="text/plain")
            assert message.status == 405 and "INVITE" in message.allowed
            text = await phone.dial("8888", body=b"hi", content_type="text/plain")
            assert (await text.final()).headers.get(
                "Accept"
            ) == "application/sdp, multipart/mixed, multipart/alternative"
            strange = await phone.dial("8888", headers=[("Require", "teleport")])
            assert (await strange.final()).status == 420
            other = await phone.dial("", uri="urn:service:sos", to="<urn:service:sos>")
            assert (await other.final()).status == 416
            asked = await phone.ask(phone.build("OPTIONS", f"sip:8888@{DOMAIN}"))
            assert asked.status == 200
            assert all(name in asked.headers for name in ("allow", "accept", "supported"))

    asyncio.run(scenario())


def test_only_the_activating_code_to_the_service_number_writes_the_overlay(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            phone = await world.phone("1001")
            service.live.add(f"1001@{DOMAIN}")
            for code, overlays in (("*21*8888%23", 1), ("*21*1003%23", 1), ("%23%2321%23", 1)):
                call = await phone.dial(code)
                await call.answered()
                await phone.accept("BYE")
                assert len(service.overlays) == overlays
            own = (await world.store.diversions.get(f"1001@{DOMAIN}")).own
            assert own is None or not own.rules

    asyncio.run(scenario())


def test_a_terminals_own_code_that_missed_its_broadcast_leaves_the_users_forwarding_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            phone = await world.phone("1001")
            own = DiversionRules((DiversionRule("unconditional", f"1003@{DOMAIN}"),))
            await world.store.diversions.change(f"1001@{DOMAIN}", lambda _: own)
            service.just_ended.add(f"1001@{DOMAIN}")
            call = await phone.dial("*21*8888%23")
            assert (await call.final()).status == 480
            assert (await world.store.diversions.get(f"1001@{DOMAIN}")).own == own

    asyncio.run(scenario())


def test_a_stopping_server_says_bye_to_everybody(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            phone, _, _ = await live(world, service)
            stopping = asyncio.create_task(world.server.stop())
            assert (await phone.accept("BYE")).reasons[0].cause == 503
            await asyncio.wait_for(stopping, 2)
            assert service.ends == ["local"]

    asyncio.run(scenario())


def test_a_restarted_server_holds_its_calls_and_can_end_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        port = await _free_port()
        config = Config(data_dir=tmp_path, sip=SipConfig(port=port))
        phone: Phone
        async with running(tmp_path, service, config=config) as world:
            phone, _, dialog = await live(world, service)
            world.phones.clear()
            world.server.endpoint.dialogs.clear()  # as if it had died: no BYE
        async with running(tmp_path, service, config=config) as world:
            world.phones.append(phone)
            stored = (await world.store.dialogs.owned_by("as-test"))[0]
            restored = world.server.endpoint.restore(stored)
            assert (restored.id, restored.app) == (dialog.id, {"group": "g", "leg": "1"})
            ending = asyncio.create_task(restored.bye())
            bye = await phone.accept("BYE")
            assert (bye.call_id, bye.from_.tag) == (restored.state.call_id, restored.state.local_tag)
            await ending
            await asyncio.sleep(0.1)
            assert await world.store.dialogs.owned_by("as-test") == []

    asyncio.run(scenario())


async def _free_port() -> int:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    port: int = Address(*transport.get_extra_info("sockname")).port
    transport.close()
    return port


def test_a_call_nobody_acknowledges_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service()
        async with running(tmp_path, service) as world:
            phone = await world.phone("1001")
            call = await phone.dial("8888")
            await call.until(200)
            dialog = await service.dialogs.get()
            async with asyncio.timeout(QUICK.timeout + 2):
                while (await phone.requests.get())[1].method != "BYE":
                    pass
            assert not dialog.ended.is_set() or service.ends == ["ack-timeout"]

    asyncio.run(scenario())
