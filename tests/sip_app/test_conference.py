"""The conference view of a broadcast: the roster for its broadcaster, the count for its viewers."""

import asyncio
import itertools
from pathlib import Path

import pytest
from broadcast_world import BROADCASTER, MediaPhone, broadcasting, until
from lxml import etree
from watching import Watch, ask, check, watch

from protocols.conference_info import Conference, Endpoint, User, document, readable
from protocols.sip.message import Request

QUICKLY = {"events": {"notify_interval": 0.05}}
NS = {"c": "urn:ietf:params:xml:ns:conference-info"}


class Roster:
    """A conference as a watcher knows it that has read every document in order."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._read = 0
        self.version, self.count, self.over = 0, 0, False
        self.users: dict[str, str] = {}

    def update(self) -> "Roster":
        for notify in self._watch.notifies[self._read :]:
            self._read += 1
            if notify.body:
                self._take(notify)
        return self

    def _take(self, notify: Request) -> None:
        assert notify.content_type == "application/conference-info+xml"
        root = etree.fromstring(notify.body)
        version, state = int(root.get("version")), root.get("state")
        if state == "deleted":
            self.over = True
            return
        if state == "full":
            self.users.clear()
        else:
            assert version == self.version + 1, "a document was missed"
        self.version = version
        self.count = int(root.findtext("c:conference-state/c:user-count", namespaces=NS))
        for user in root.iterfind("c:users/c:user", NS):
            if user.get("state") == "deleted":
                del self.users[user.get("entity")]
            else:
                self.users[user.get("entity")] = user.findtext("c:roles/c:entry", namespaces=NS)


async def conference(phone: MediaPhone, number: str = BROADCASTER) -> tuple[Watch, Roster]:
    subscription = await watch(phone, number, "conference")
    return subscription, Roster(subscription)


def test_the_broadcaster_sees_who_comes_and_goes_and_viewers_see_how_many(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            broadcaster, _ = await world.broadcaster()
            _, roster = await conference(broadcaster)
            viewer, call = await world.viewer("1002")
            _, seen = await conference(viewer)
            await world.viewer("1003")
            everybody = {f"sip:{number}@dialcast.internal" for number in ("1001", "1002", "1003")}
            await until(lambda: set(roster.update().users) == everybody)
            await until(lambda: seen.update().count == 3)
            assert list(seen.users.values()) == ["broadcaster"], "a viewer learns no other viewer's name"
            assert roster.users["sip:1003@dialcast.internal"] == "viewer"
            await call.send("BYE")
            await until(lambda: set(roster.update().users) == everybody - {"sip:1002@dialcast.internal"})
            assert roster.count == 2

    asyncio.run(scenario())


def test_whoever_does_not_take_part_learns_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            await world.broadcaster()
            stranger = await world.phone("1004")
            _, refused = await ask(stranger, BROADCASTER, "conference")
            assert refused.status == 403
            _, refused = await ask(stranger, "1005", "conference")
            assert refused.status == 480, "1005 is not live"
            _, refused = await ask(stranger, "4711", "conference")
            assert refused.status == 404
        everybody = {"events": {"conference_watchers": "subscribers"}}
        async with broadcasting(tmp_path / "open", config=everybody) as world:
            await world.broadcaster()
            _, seen = await conference(await world.phone("1004"))
            await until(lambda: seen.update().count == 1)

    asyncio.run(scenario())


def test_the_conference_uri_of_the_call_is_what_one_subscribes_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            broadcaster, call = await world.broadcaster()
            assert call.dialog is not None
            subscription = await watch(broadcaster, call.dialog.remote_target, "conference")
            body = (await subscription.told()).body
            assert b'entity="sip:1001@dialcast.internal"' in body
            uri = "c:conference-description/c:conf-uris/c:entry/c:uri"
            assert etree.fromstring(body).findtext(uri, namespaces=NS) == call.dialog.remote_target
            viewer, view = await world.viewer("1002")
            assert view.dialog is not None
            body = (await (await watch(viewer, BROADCASTER, "conference")).told()).body
            assert etree.fromstring(body).findtext(uri, namespaces=NS) == view.dialog.remote_target

    asyncio.run(scenario())


def test_a_viewer_that_hangs_up_may_no_longer_follow(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            await world.broadcaster()
            viewer, call = await world.viewer("1002")
            subscription, _ = await conference(viewer)
            await subscription.told()
            await call.send("BYE")
            assert await subscription.ended() == "terminated;reason=rejected"
            assert (await subscription.again(600)).status == 481

    asyncio.run(scenario())


def test_the_end_of_the_broadcast_is_the_end_of_every_subscription(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            broadcaster, call = await world.broadcaster()
            viewer, _ = await world.viewer("1002")
            watches = [await conference(phone) for phone in (broadcaster, viewer)]
            await asyncio.gather(*(subscription.told() for subscription, _ in watches))
            await call.send("BYE")
            for subscription, roster in watches:
                assert await subscription.ended() == "terminated;reason=noresource"
                assert roster.update().over
            await until(lambda: not world.server.notifier.counts)

    asyncio.run(scenario())


def test_a_refresh_brings_the_whole_state_again_to_one_that_missed_a_document(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config=QUICKLY) as world:
            broadcaster, _ = await world.broadcaster()
            subscription, _ = await conference(broadcaster)
            await world.viewer("1002")
            await subscription.told(2)
            assert b'state="partial"' in subscription.notifies[1].body
            assert (await subscription.again(600)).status == 200
            whole = (await subscription.told(3)).body
            assert b'state="full" version="3"' in whole and b"1002" in whole

    asyncio.run(scenario())


def test_many_joining_at_once_cost_one_notification_an_interval(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"events": {"notify_interval": 0.4}}) as world:
            broadcaster, _ = await world.broadcaster()
            subscription, roster = await conference(broadcaster)
            await subscription.told()
            began = asyncio.get_running_loop().time()
            for number in range(1002, 1010):
                await world.viewer(str(number))
            await until(lambda: len(roster.update().users) == 9)
            took = asyncio.get_running_loop().time() - began
            gaps = [after - before for before, after in itertools.pairwise(subscription.times)]
            assert min(gaps) > 0.35
            assert len(subscription.notifies) <= 2 + took / 0.4

    asyncio.run(scenario())


def test_a_roster_too_long_for_one_message_comes_in_several(tmp_path: Path) -> None:
    small = {"events": {"notify_interval": 0.02, "document_bytes": 1000}}

    async def scenario() -> None:
        async with broadcasting(tmp_path, config=small) as world:
            broadcaster, _ = await world.broadcaster()
            for number in range(1002, 1010):
                await world.viewer(str(number))
            subscription, roster = await conference(broadcaster)
            await subscription.told()
            assert roster.update().count == 9, "the count is right from the first document"
            assert len(roster.users) < 9
            await until(lambda: len(roster.update().users) == 9)
            assert all(len(notify.body) <= 1000 for notify in subscription.notifies)

    asyncio.run(scenario())


def test_past_the_limit_viewers_are_counted_and_not_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path, config={"events": {"notify_interval": 0.02, "roster_limit": 1}}) as world:
            broadcaster, _ = await world.broadcaster()
            _, call = await world.viewer("1002")
            await world.viewer("1003")
            _, roster = await conference(broadcaster)
            await until(lambda: roster.update().count == 3)
            assert set(roster.users) == {"sip:1001@dialcast.internal", "sip:1002@dialcast.internal"}
            await call.send("BYE")
            await until(lambda: "sip:1003@dialcast.internal" in roster.update().users)
            assert set(roster.users) == {"sip:1001@dialcast.internal", "sip:1003@dialcast.internal"}

    asyncio.run(scenario())


def test_the_schemas_of_the_tests_can_fail() -> None:
    good = document(Conference("sip:1@d", "1 live", 1, 10, ("sip:1@h",)), 1, "full", {}, budget=3000).body
    check("application/conference-info+xml", good)
    count = b"<user-count>1</user-count>"
    for wrong in (b"", b"<user-count>one</user-count>", b"<active>true</active>" + count):
        with pytest.raises(etree.DocumentInvalid):
            check("application/conference-info+xml", good.replace(count, wrong + b"<users/>"))
    for kind, wrong in (("pidf", b"<presence xmlns='urn:ietf:params:xml:ns:pidf'/>"), ("dialog-info", good)):
        with pytest.raises(etree.DocumentInvalid):
            check(f"application/{kind}+xml", wrong)


def test_what_a_viewer_calls_itself_cannot_break_the_document() -> None:
    evil = User('sip:"<&@d', "<script>&\"'", "viewer", (Endpoint("sip:x@d;call=<1>", "1970-01-01T00:00:00Z"),))
    body = document(Conference("sip:1@d", "1 & live", 2, 10), 1, "full", {evil.entity: evil}, budget=3000).body
    user = etree.fromstring(body).find("c:users/c:user", NS)
    assert user.get("entity") == evil.entity
    assert user.findtext("c:display-text", namespaces=NS) == evil.display_text
    assert readable("a\x1b[31m\u202eb\x00\nc" + "d" * 99) == ("a[31mbc" + "d" * 99)[:64]
