"""Who is live, on others' phones: presence in buddy lists, and lamp keys."""

import asyncio
from pathlib import Path

from broadcast_world import BROADCASTER, broadcasting, until
from lxml import etree
from watching import Watch, ask, watch

PIDF = {"p": "urn:ietf:params:xml:ns:pidf"}
LAMP = {"d": "urn:ietf:params:xml:ns:dialog-info"}
QUICKLY = {"events": {"notify_interval": 0.02}}
WITHIN = 1.0
"""Seconds within which a change must show."""


def shown(watch: Watch) -> tuple[str, bool]:
    """Open or closed, and whether the note says live."""
    root = etree.fromstring(watch.notifies[-1].body)
    live = "Live" in [note.text for note in root.iterfind("p:note", PIDF)]
    return root.findtext("p:tuple/p:status/p:basic", namespaces=PIDF), live


def lamp(watch: Watch) -> str:
    root = etree.fromstring(watch.notifies[-1].body)
    return root.findtext("d:dialog/d:state", namespaces=LAMP)


def test_a_buddy_list_shows_who_is_registered_and_who_is_live(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            friend = await world.phone("1002")
            buddy = await watch(friend, BROADCASTER, "presence")
            await buddy.told()
            assert shown(buddy) == ("closed", False)
            phone = await world.phone(BROADCASTER)
            await until(lambda: shown(buddy) == ("open", False), WITHIN)
            call = await phone.go_live()
            await until(lambda: shown(buddy) == ("open", True), WITHIN)
            await call.send("BYE")
            await until(lambda: shown(buddy) == ("open", False), WITHIN)
            await phone.register(expires=0)
            await until(lambda: shown(buddy) == ("closed", False), WITHIN)

    asyncio.run(scenario())


def test_a_registration_that_runs_out_shows_without_a_word_from_the_phone(tmp_path: Path) -> None:
    config = QUICKLY | {"sip": {"port": 0, "requests_per_second": 5000, "min_expires": 1}}

    async def scenario() -> None:
        async with broadcasting(tmp_path, config=config) as world:
            friend, phone = await world.phone("1002"), await world.phone(BROADCASTER)
            buddy = await watch(friend, BROADCASTER, "presence")
            await buddy.told()
            assert shown(buddy) == ("open", False)
            assert (await phone.register(expires=1)).status == 200
            await until(lambda: shown(buddy) == ("closed", False), 2.5)

    asyncio.run(scenario())


def test_a_lamp_is_lit_while_its_number_is_live_and_tells_strangers_no_identifiers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            phone, friend = await world.phone(BROADCASTER), await world.phone("1002")
            key = await watch(friend, BROADCASTER, "dialog")
            await key.told()
            assert lamp(key) == "terminated"
            call = await phone.go_live()
            await until(lambda: lamp(key) == "confirmed", WITHIN)
            own = await watch(phone, BROADCASTER, "dialog")
            named = (await own.told()).body.decode()
            assert call.dialog is not None
            assert call.dialog.call_id in named and f'local-tag="{call.dialog.local_tag}"' in named
            await call.send("BYE")
            await until(lambda: lamp(key) == lamp(own) == "terminated", WITHIN)
            everything = b"".join(notify.body for notify in key.notifies).decode()
            assert call.dialog.call_id not in everything and "tag=" not in everything
            versions = [int(etree.fromstring(notify.body).get("version")) for notify in key.notifies]
            assert versions == [0, 1, 2]

    asyncio.run(scenario())


def test_the_lamp_goes_out_before_a_thousand_byes_have_been_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY, bye_rate=1) as world:
            _, call = await world.broadcaster()
            await world.viewer("1003")
            await world.viewer("1004")
            key = await watch(await world.phone("1002"), BROADCASTER, "dialog")
            await key.told()
            await call.send("BYE")
            await until(lambda: lamp(key) == "terminated", WITHIN)
            assert world.service.closing, "the viewers' calls are still being ended"

    asyncio.run(scenario())


def test_an_operator_may_keep_presence_to_ones_own_number_or_to_the_phones(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"events": {"presence_watchers": "own"}}) as world:
            phone = await world.phone("1002")
            for event in ("presence", "dialog"):
                assert (await ask(phone, BROADCASTER, event))[1].status == 403
                assert (await ask(phone, "1002", event))[1].status == 200
        async with broadcasting(tmp_path / "b", config={"events": {"presence_watchers": "nobody"}}) as world:
            phone, other = await world.phone("1002"), await world.phone("1003")
            assert (await ask(phone, "1003", "presence"))[1].status == 200
            assert [request.method for request, _ in other.heard] == ["SUBSCRIBE"], "its own phone answers"

    asyncio.run(scenario())


def test_nobodys_number_has_no_presence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone = await world.phone("1002")
            assert (await ask(phone, "4711", "presence"))[1].status == 404
            assert (await ask(phone, "8888", "presence"))[1].status == 404

    asyncio.run(scenario())
