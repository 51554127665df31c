"""The store keeps what the service logic puts through its ports, and gives it back after a restart."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from protocols.records import (
    Binding,
    Broadcast,
    DiversionRule,
    DiversionRules,
    Diversions,
    Overlay,
    StoredDialog,
    Subscriber,
)
from provisioning.config import Config, StoreConfig
from provisioning.database import LOCK_TIMEOUT, StoreError
from provisioning.store import Store
from provisioning.subscriber_store import EXPIRED_KEPT, PURGED_AT_ONCE
from sip_app import ports

AOR = "1001@dialcast.internal"
SUBSCRIBER = Subscriber(AOR, "1001", "dialcast.internal", (("MD5", "00ff"), ("SHA-256", "11ff")), "Ann \u6c11")
Work = Callable[[Store], Awaitable[None]]


def binding(contact: str = "sip:1001@192.0.2.7:5060", **changes: Any) -> Binding:
    base = Binding(
        AOR, contact, "call-1", 7, time.time() + 60, 0.5, '{"transport":"udp"}', ("<sip:edge;lr>",), "urn:x", "UA"
    )
    return replace(base, **changes)


def broadcast(**changes: Any) -> Broadcast:
    return replace(Broadcast(AOR, 1, "as-1", "relay-1", "opening", 100.0, 50.0, "{}", "leg"), **changes)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=tmp_path / "data")


def with_store(config: Config, *works: Work) -> None:
    """Run each piece of work on a store freshly opened, as after a restart."""

    async def run(work: Work) -> None:
        store = await Store.open(config)
        try:
            await work(store)
        finally:
            await store.close()

    for work in works:
        asyncio.run(run(work))


def test_the_store_satisfies_the_ports_of_the_service_logic(config: Config) -> None:
    async def work(store: Store) -> None:
        credentials: ports.Credentials = store.credentials
        location: ports.Location = store.location
        diversions: ports.DiversionSettings = store.diversions
        broadcasts: ports.Broadcasts = store.broadcasts
        dialogs: ports.Dialogs = store.dialogs
        secrets: ports.Secrets = store.secrets
        pairs = [
            (credentials, ports.Credentials),
            (location, ports.Location),
            (diversions, ports.DiversionSettings),
            (broadcasts, ports.Broadcasts),
            (dialogs, ports.Dialogs),
            (secrets, ports.Secrets),
        ]
        for port, protocol in pairs:
            asked = {name for name in vars(protocol) if not name.startswith("_")}
            assert all(asyncio.iscoroutinefunction(getattr(port, name)) for name in asked), protocol

    with_store(config, work)


def test_a_subscriber_is_found_again(config: Config) -> None:
    async def put(store: Store) -> None:
        assert await store.credentials.find(AOR) is None
        await store.credentials.put(SUBSCRIBER)
        assert await store.credentials.find(AOR) == SUBSCRIBER

    async def found(store: Store) -> None:
        assert await store.credentials.find(AOR) == SUBSCRIBER
        assert await store.credentials.find("9" * 5000) is None

    with_store(config, put, found)


def test_a_binding_is_added_refreshed_and_dropped(config: Config) -> None:
    first, second = binding(), binding("sip:b@192.0.2.8", q=0.9)

    async def add(store: Store) -> None:
        await store.location.replace(AOR, [first, second], [])
        assert await store.location.bindings(AOR, time.time()) == (second, first), "best q first"

    async def refresh(store: Store) -> None:
        assert await store.location.bindings(AOR, time.time()) == (second, first)
        await store.location.replace(AOR, [replace(first, cseq=8)], [second.contact])
        assert await store.location.bindings(AOR, time.time()) == (replace(first, cseq=8),)

    async def look(store: Store) -> None:
        assert await store.location.bindings(AOR, time.time()) == (replace(first, cseq=8),)

    with_store(config, add, refresh, look)


def test_an_expired_binding_is_not_returned_and_finally_forgotten(config: Config) -> None:
    old = binding(expires_at=1000.0)

    async def work(store: Store) -> None:
        await store.location.replace(AOR, [old], [])
        assert await store.location.bindings(AOR, 999.0) == (old,)
        assert await store.location.bindings(AOR, 1000.0) == ()
        await store.location.replace(AOR, [binding("sip:new@h")], [])
        assert [known.contact for known in await store.location.bindings(AOR, 0.0)] == ["sip:new@h"]
        await store.location.replace("1002@x", [replace(old, aor="1002@x")], [])

    async def gone(store: Store) -> None:
        assert await store.location.bindings("1002@x", 0.0) == ()

    with_store(config, work, gone)


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what the store does by itself."""
    for _ in range(int(seconds / 0.05)):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never happened")


def test_numbers_that_never_register_again_leave_no_row_while_the_server_runs(config: Config) -> None:
    """More than one step of a purge removes, and none that stands or has only just expired."""
    begun = time.time()
    kept = {"1001": begun + 60, "1002": begun - 1}
    due = {f"gone-{place}": begun + 2 - EXPIRED_KEPT for place in range(PURGED_AT_ONCE + 20)}

    def on_disk() -> set[str]:
        with closing(sqlite3.connect(config.data_path / "dialcast.db")) as other:
            return {aor.partition("@")[0] for (aor,) in other.execute("SELECT aor FROM bindings")}

    async def run() -> None:
        store = await Store.open(config, purge_every=0.5)
        try:
            writes = [
                store.location.replace(f"{name}@x", [binding(aor=f"{name}@x", expires_at=at)], [])
                for name, at in (kept | due).items()
            ]
            await asyncio.gather(*writes)
            assert on_disk() == {*kept, *due}
            await until(lambda: not on_disk() & {*due})
            assert on_disk() == {*kept}
        finally:
            await store.close()

    asyncio.run(run())


def test_a_purge_that_finds_the_database_locked_is_made_up_for(config: Config) -> None:

    async def run() -> None:
        store = await Store.open(config, purge_every=0.2)
        try:
            gone = binding(expires_at=time.time() - EXPIRED_KEPT - 1)
            await store.location.replace(AOR, [gone], [])
            with closing(sqlite3.connect(config.data_path / "dialcast.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await asyncio.sleep(LOCK_TIMEOUT + 1)
                assert other.execute("SELECT count(*) FROM bindings").fetchone() == (1,)
                other.execute("ROLLBACK")
                await until(lambda: other.execute("SELECT count(*) FROM bindings").fetchone() == (0,))
            standing = binding(aor="1002@x")
            await store.location.replace("1002@x", [standing], [])
            assert await store.location.bindings("1002@x", time.time()) == (standing,)
        finally:
            await store.close()

    asyncio.run(run())


def test_contacts_longer_than_an_index_key_stay_apart(config: Config) -> None:
    long = ["sip:" + "x" * 5000 + end for end in ("a", "b")]

    async def work(store: Store) -> None:
        await store.location.replace(AOR, [binding(contact) for contact in long], [])
        await store.location.replace(AOR, [], long[:1])

    async def look(store: Store) -> None:
        assert [known.contact for known in await store.location.bindings(AOR, 0.0)] == long[1:]

    with_store(config, work, look)


def test_the_overlay_comes_and_goes_above_the_users_own_forwarding(config: Config) -> None:
    own, overlay = DiversionRules((DiversionRule("unconditional", "8888@x"),)), Overlay("8888@x", AOR, 3)

    async def put(store: Store) -> None:
        assert await store.diversions.get(AOR) == Diversions()
        await store.diversions.change(AOR, lambda _: own)
        await store.diversions.set_overlay(AOR, overlay)
        assert await store.diversions.get(AOR) == Diversions(own, overlay)

    async def withdraw(store: Store) -> None:
        assert await store.diversions.overlays() == [(AOR, overlay)]
        assert await store.diversions.get(AOR) == Diversions(own, overlay)
        await store.diversions.clear_overlay(AOR, epoch=2)
        assert (await store.diversions.get(AOR)).overlay == overlay, "another epoch's overlay stays"
        await store.diversions.clear_overlay(AOR, epoch=3)
        assert await store.diversions.get(AOR) == Diversions(own)

    async def erase(store: Store) -> None:
        assert await store.diversions.get(AOR) == Diversions(own)
        await store.diversions.set_overlay(AOR, overlay)
        await store.diversions.clear_overlay(AOR)
        await store.diversions.change(AOR, lambda _: None)
        assert await store.diversions.get(AOR) == Diversions()
        assert await store.diversions.overlays() == []

    with_store(config, put, withdraw, erase)


def test_only_one_of_many_claims_the_channel(config: Config) -> None:
    async def work(store: Store) -> None:
        claims = [broadcast(epoch=number, as_id=f"as-{number}") for number in range(20)]
        answers = await asyncio.gather(*(store.broadcasts.claim(claim, 0.0) for claim in claims))
        winners = [claim for claim, answer in zip(claims, answers, strict=True) if answer is None]
        assert len(winners) == 1
        assert {answer for answer in answers if answer} == set(winners), "the others are told who holds it"
        assert await store.broadcasts.get(AOR) == winners[0]

    with_store(config, work)


def test_a_claim_is_taken_over_only_after_its_lease(config: Config) -> None:
    ours, theirs = broadcast(), broadcast(epoch=2, as_id="as-2")

    async def work(store: Store) -> None:
        assert await store.broadcasts.claim(ours, 0.0) is None
        assert await store.broadcasts.claim(ours, 1.0) is None, "claiming again what is ours is no conflict"
        assert await store.broadcasts.claim(theirs, 99.0) == ours
        assert await store.broadcasts.claim(theirs, 100.0) is None
        await store.broadcasts.update(replace(ours, state="live"))
        assert await store.broadcasts.get(AOR) == theirs, "a former owner changes nothing"
        await store.broadcasts.release(AOR, ours.epoch, ours.as_id)
        assert await store.broadcasts.get(AOR) == theirs
        await store.broadcasts.update(replace(theirs, state="live"))

    async def later(store: Store) -> None:
        assert await store.broadcasts.all() == [replace(theirs, state="live")]
        await store.broadcasts.release(AOR, theirs.epoch, theirs.as_id)
        assert await store.broadcasts.get(AOR) is None
        assert await store.broadcasts.all() == []

    with_store(config, work, later)


def test_epochs_never_repeat_not_even_after_a_restart(config: Config) -> None:
    seen: list[int] = []

    async def work(store: Store) -> None:
        seen.extend(await asyncio.gather(*(store.broadcasts.next_epoch(AOR) for _ in range(5))))
        assert await store.broadcasts.next_epoch("other@x") == len(seen) // 5

    with_store(config, work, work)
    assert seen == sorted(set(seen))


def test_dialogs_are_held_again_by_their_server(config: Config) -> None:
    ours, other = StoredDialog("d" * 300, "as-1", AOR, "{1}"), StoredDialog("e", "as-2", AOR, "{}")

    async def save(store: Store) -> None:
        for dialog in (ours, other, replace(ours, state="{2}")):
            await store.dialogs.save(dialog)

    async def again(store: Store) -> None:
        assert await store.dialogs.owned_by("as-1") == [replace(ours, state="{2}")]
        await store.dialogs.delete(ours.dialog_id, "as-2")
        assert len(await store.dialogs.owned_by("as-1")) == 1, "it is not theirs to forget"
        with pytest.raises(StoreError):
            await store.dialogs.save(replace(ours, as_id="as-2"))
        await store.dialogs.delete(ours.dialog_id, "as-1")
        assert await store.dialogs.owned_by("as-1") == []
        assert await store.dialogs.owned_by("as-2") == [other]

    with_store(config, save, again)


def test_secrets_and_the_servers_name_are_made_once(config: Config) -> None:
    kept: list[tuple[bytes, bytes, str]] = []

    async def work(store: Store) -> None:
        secrets = store.secrets
        kept.append((await secrets.secret("nonce"), await secrets.secret("other"), await secrets.as_id()))

    with_store(config, work, work)
    assert kept[0] == kept[1]
    assert len({kept[0][0], kept[0][1]}) == 2
    assert all(len(secret) == 32 for secret in kept[0][:2])


@pytest.mark.parametrize("cache_seconds", [0.2, 0])
def test_a_change_by_another_process_is_seen_in_time(config: Config, cache_seconds: float) -> None:
    """Two stores on one file stand for the server and the `dialcast subscriber` command."""
    config = config.model_copy(update={"store": StoreConfig(cache_seconds=cache_seconds)})

    async def work(server: Store) -> None:
        assert await server.credentials.find(AOR) is None
        command = await Store.open(config)
        await command.credentials.put(SUBSCRIBER)
        await command.diversions.change(AOR, lambda _: DiversionRules((DiversionRule("unconditional", "8888@x"),)))
        deadline = time.monotonic() + cache_seconds + 0.3
        while await server.credentials.find(AOR) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert (await server.diversions.get(AOR)).own
        await command.credentials.remove(AOR)
        await command.close()
        while await server.credentials.find(AOR):
            assert time.monotonic() < deadline + 1
            await asyncio.sleep(0.01)
        assert await server.diversions.get(AOR) == Diversions()

    with_store(config, work)


def test_a_small_cache_forgets_but_never_errs(config: Config) -> None:
    config = config.model_copy(update={"store": StoreConfig(cache_entries=2)})

    async def work(store: Store) -> None:
        for number in range(10):
            await store.credentials.put(replace(SUBSCRIBER, aor=f"{number}@x"))
        for number in (*range(10), *range(10)):
            found = await store.credentials.find(f"{number}@x")
            assert found and found.aor == f"{number}@x"

    with_store(config, work)


def test_any_database_by_url(tmp_path: Path) -> None:
    url = SecretStr(f"sqlite:///{tmp_path}/elsewhere.db")

    async def work(store: Store) -> None:
        await store.credentials.put(SUBSCRIBER)

    with_store(Config(store=StoreConfig(url=url)), work)
    assert (tmp_path / "elsewhere.db").stat().st_mode & 0o777 == 0o600


def test_nobody_else_can_read_the_data(config: Config) -> None:
    async def work(store: Store) -> None:
        await store.credentials.put(SUBSCRIBER)
        files = list(config.data_path.iterdir())
        assert {file.name for file in files} >= {"dialcast.db", "dialcast.db-wal", "dialcast.db-shm"}
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        assert config.data_path.stat().st_mode & 0o777 == 0o700

    with_store(config, work)


def test_a_directory_that_is_not_ours_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "something").touch()

    async def work(store: Store) -> None:
        assert shared.stat().st_mode & 0o777 == 0o755

    with_store(Config(data_dir=shared), work)
