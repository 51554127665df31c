"""The notifier of RFC 6665, as a watcher meets it: accepted and refused, refreshed and ended, paced and bounded."""

import asyncio
from pathlib import Path

import pytest
from broadcast_world import BROADCASTER, broadcasting, until
from ua import DOMAIN
from watching import ask, watch

from protocols.sip.errors import SipParseError
from protocols.sip.subscription import Event, accepts

QUICKLY = {"events": {"notify_interval": 0.02}}


def test_a_subscription_is_answered_with_its_time_and_the_state_follows_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            phone = await world.phone("1002")
            watcher = await watch(phone, BROADCASTER, "presence;id=7", expires=600)
            assert watcher.response.expires == 600
            assert watcher.response.headers.get("allow-events") == "conference, dialog, presence"
            notify = await watcher.told()
            assert notify.headers.get("event") == "presence;id=7"
            assert watcher.states == ["active;expires=600"]
            assert notify.content_type == "application/pidf+xml" and notify.contacts

    asyncio.run(scenario())


def test_a_refresh_prolongs_and_expires_0_ends_with_the_state_as_last_word(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            watcher = await watch(await world.phone("1002"), BROADCASTER, "presence", expires=60)
            await watcher.told()
            assert (await watcher.again(900)).expires == 900
            assert (await watcher.told(2)).body
            assert watcher.states[1] == "active;expires=900"
            assert (await watcher.again(0)).status == 200
            assert await watcher.ended() == "terminated;reason=timeout"
            assert watcher.notifies[-1].body
            assert (await watcher.again(600)).status == 481
            await until(lambda: not world.server.notifier.counts)

    asyncio.run(scenario())


def test_one_may_ask_once_without_subscribing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            watcher = await watch(await world.phone("1002"), BROADCASTER, "presence", expires=0)
            assert watcher.response.expires == 0
            assert await watcher.ended() == "terminated;reason=timeout"
            assert len(watcher.notifies) == 1 and watcher.notifies[0].body
            await until(lambda: not world.server.notifier.counts)

    asyncio.run(scenario())


def test_one_that_is_not_refreshed_ends_and_says_why(tmp_path: Path) -> None:
    config = {"events": {"notify_interval": 0.02, "min_expires": 1}}

    async def scenario() -> None:
        async with broadcasting(tmp_path, config=config) as world:
            watcher = await watch(await world.phone("1002"), BROADCASTER, "presence", expires=1)
            assert await watcher.ended() == "terminated;reason=timeout"
            await until(lambda: not world.server.notifier.counts)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("event", "options", "status", "header"),
    [
        (None, {}, 489, ("allow-events", "conference, dialog, presence")),
        (";;;", {}, 489, ("allow-events", "conference, dialog, presence")),
        ("presence", {"expires": 5}, 423, ("min-expires", "60")),
        ("presence", {"accept": "application/rlmi+xml"}, 406, ("accept", "application/pidf+xml")),
        ("message-summary", {}, 480, None),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_can(
    tmp_path: Path, event: str, options: dict[str, str], status: int, header: tuple[str, str] | None
) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            _, response = await ask(await world.phone("1002"), BROADCASTER, event, **options)
            assert response.status == status
            if header is not None:
                assert response.headers.get(header[0]) == header[1]
            assert not world.server.notifier.counts

    asyncio.run(scenario())


def test_other_packages_are_the_phones_own_affair(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, other = await world.phone("1002"), await world.phone("1003")
            await watch(phone, "1003", "message-summary")
            assert other.heard[0][0].headers.get("event") == "message-summary"
            assert (await ask(phone, "8888", "message-summary"))[1].status == 489

    asyncio.run(scenario())


def test_only_subscribers_may_watch_and_from_their_own_address(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            phone = await world.phone("1002")
            bare = phone.build("SUBSCRIBE", f"sip:{BROADCASTER}@{DOMAIN}", headers=[("Event", "presence")])
            assert (await phone.ask(bare)).status == 407
            watcher = await watch(phone, BROADCASTER, "presence")
            await watcher.told()
            elsewhere = await world.phone("1003", host="127.0.0.2")
            _, request = watcher.dialog.request("SUBSCRIBE", headers=[("Event", "presence"), ("Expires", "0")])
            assert (await elsewhere.ask(request)).status == 407, "who it is must be proven again"
            assert watcher.states == ["active;expires=3600"]

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [481, 405, 500])
def test_a_watcher_that_refuses_to_be_told_is_told_no_more(tmp_path: Path, status: int) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            phone = await world.phone("1002")
            phone.answers["NOTIFY"] = status
            watcher = await watch(phone, BROADCASTER, "presence")
            await until(lambda: not world.server.notifier.counts)
            await world.broadcaster()
            await asyncio.sleep(0.1)
            assert len(watcher.notifies) == 1
            assert (await watcher.again(600)).status == 481

    asyncio.run(scenario())


def test_a_watcher_that_asks_for_patience_is_told_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            phone = await world.phone("1002")
            phone.answers["NOTIFY"], phone.answer_headers = 503, [("Retry-After", "1")]
            watcher = await watch(phone, BROADCASTER, "presence")
            await watcher.told()
            phone.answers.clear()
            await watcher.told(2)
            assert watcher.times[1] - watcher.times[0] > 0.9
            assert (await watcher.again(600)).status == 200

    asyncio.run(scenario())


def test_a_watcher_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            phone = await world.phone("1002")
            await watch(phone, BROADCASTER, "presence")
            await until(lambda: bool(phone.heard))
            phone.dead = True
            await world.broadcaster()
            await until(lambda: not world.server.notifier.counts, 6.0)

    asyncio.run(scenario())


def test_while_a_notification_is_unanswered_no_other_is_sent_and_the_next_tells_the_latest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            phone, broadcaster = await world.phone("1002"), await world.phone(BROADCASTER)
            watcher = await watch(phone, BROADCASTER, "presence")
            await watcher.told()
            phone.dead = True
            call = await broadcaster.go_live()
            await watcher.told(2)
            await call.send("BYE")
            await broadcaster.register(expires=0)
            await asyncio.sleep(0.1)
            assert len(watcher.notifies) == 2
            phone.dead = False
            phone.release()
            latest = (await watcher.told(3)).body
            assert b"closed" in latest and b"Live" not in latest

    asyncio.run(scenario())


def test_limits_hold_for_each_account_and_for_all(tmp_path: Path) -> None:
    config = {"events": {"notify_interval": 0.02, "max_subscriptions": 3, "max_subscriptions_per_account": 2}}

    async def scenario() -> None:
        async with broadcasting(tmp_path, config=config) as world:
            first, second = await world.phone("1002"), await world.phone("1003")
            held = [await watch(first, BROADCASTER, "presence") for _ in range(2)]
            assert (await ask(first, BROADCASTER, "presence"))[1].status == 403
            await watch(second, BROADCASTER, "dialog")
            _, full = await ask(second, BROADCASTER, "dialog")
            assert (full.status, full.headers.get("retry-after")) == (503, "60")
            await held[0].again(0)
            await held[0].ended()
            await until(lambda: world.server.notifier.counts["1002@dialcast.internal"] == 1)
            await watch(second, BROADCASTER, "dialog")

    asyncio.run(scenario())


def test_what_goes_to_many_goes_one_after_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"events": {"notify_interval": 0, "notify_rate": 20}}) as world:
            phone = await world.phone("1002")
            watches = [await watch(phone, BROADCASTER, "dialog") for _ in range(8)]
            await asyncio.gather(*(watcher.told() for watcher in watches))
            await world.broadcaster()
            await asyncio.gather(*(watcher.told(2) for watcher in watches))
            times = sorted(watcher.times[1] for watcher in watches)
            assert times[-1] - times[0] > 7 / 20 - 0.05

    asyncio.run(scenario())


def test_what_the_watcher_requires_and_we_have_not_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone = await world.phone("1002")
            lines = [("Event", "presence"), ("Require", "eventlist"), ("Contact", phone.contact)]
            refused = await phone.request("SUBSCRIBE", f"sip:{BROADCASTER}@{DOMAIN}", headers=lines)
            assert (refused.status, refused.headers.get("unsupported")) == (420, "eventlist")

    asyncio.run(scenario())


def test_a_server_that_stops_tells_its_watchers_to_come_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            watcher = await watch(await world.phone("1002"), BROADCASTER, "presence")
            await watcher.told()
            await world.stop_server()
            assert watcher.states[-1] == "terminated;reason=deactivated"

    asyncio.run(scenario())


def test_an_event_is_read_strictly() -> None:
    assert Event.parse(" Presence ; id=a ; x") == Event("presence", "a")
    assert Event.parse("dialog;sla;ma") == Event("dialog")
    assert str(Event("presence", "a")) == "presence;id=a"
    for bad in ("", ";", "a b", "a;=", 'a;id="', "a;" + "id=" + "x" * 200):
        with pytest.raises(SipParseError):
            Event.parse(bad)
    assert accepts([], "a/b") and accepts(["a/*"], "a/b") and accepts(["*/*;q=1"], "a/b")
    assert not accepts(["a/c"], "a/b")
