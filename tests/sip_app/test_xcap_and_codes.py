"""A user's rules are the same by telephone and by XCAP: what one sets, the other shows, and calls obey."""

import asyncio
from pathlib import Path

from test_codes import outcome
from test_xcap import BUSY, DOCUMENT, RULES, SERVICE, Client
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from ua import DOMAIN, running

from dialcast.compose import ports_of
from protocols.net import Address
from provisioning.config import Config, XcapConfig
from sip_app.xcap.server import XcapServer


def test_codes_and_xcap_change_the_same_rules(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as world:
            store = world.store
            ports = ports_of(store)  # fmt: skip
            config = Config(data_dir=tmp_path, xcap=XcapConfig(port=0))
            xcap = XcapServer(config, ports, AsyncioSelectorReactor(asyncio.get_running_loop()))
            await xcap.start()
            assert xcap.address
            web = Client(Address("127.0.0.1", xcap.address.port), "1002")
            ann, bob, carol = await world.phone("1001"), await world.phone("1002"), await world.phone("1003")

            await outcome(bob, "**61*1004**10#")
            _, _, body = await web.ask("GET", f'{SERVICE}/cp:ruleset/cp:rule[@id="cfnr"]')
            assert f"sip:1004@{DOMAIN}".encode() in body
            assert (await web.put(RULES, kind=DOCUMENT))[0] == 200
            assert await outcome(bob, "*#002#") == "Forwarding to 1004 inactive; Forwarding on busy to 1003 active"
            await outcome(bob, "*67*1004#")
            _, _, body = await web.ask("GET", BUSY)
            assert f"sip:1004@{DOMAIN}".encode() in body
            assert b"<notify-caller>false" in body, "what only XCAP can say stays"
            assert (
                await web.put(f"<target>sip:1003@{DOMAIN}</target>".encode(), f"{BUSY}/cp:actions/forward-to/target")
            )[0] == 200

            call = await ann.dial("1002")
            tx, _ = await bob.asked("INVITE")
            bob.respond(tx, 486)
            tx, _ = await carol.asked("INVITE")
            carol.respond(tx, 404)
            assert (await call.final()).status == 404
            assert 181 not in [response.status for response in call.seen]
            await xcap.stop()

    asyncio.run(scenario())
