"""The operator's HTTP port tells what runs, and gives nobody a way to hurt it."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from dialcast import monitor as module
from dialcast.monitor import Finding, Monitor
from protocols.net import Address


async def well() -> dict[str, Finding]:
    return {"store": {"ok": True, "write_s": 0.001}}


async def broken() -> dict[str, Finding]:
    return {"store": {"ok": False, "error": "disk full"}, "sip": {"ok": True}}


def serving(test: Callable[[Monitor], Awaitable[None]], health: module.Health = well) -> None:
    async def run() -> None:
        monitor = Monitor("test", health)
        await monitor.start("127.0.0.1", 0)
        try:
            await test(monitor)
        finally:
            await monitor.stop()

    asyncio.run(run())


async def say(address: Address | None, data: bytes) -> bytes:
    """What comes back until the connection is closed."""
    assert address is not None
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def get(monitor: Monitor, path: str, *fields: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    answer = await say(monitor.address, "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode())
    head, _, body = answer.decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    kind = next(line.partition(": ")[2] for line in lines if line.startswith("Content-Type"))
    return int(lines[0].split()[1]), kind, body


def test_metrics_are_prometheus_text_and_openmetrics_for_who_asks() -> None:
    async def test(monitor: Monitor) -> None:
        status, kind, body = await get(monitor, "/metrics")
        assert status == 200 and kind.startswith("text/plain")
        assert 'dialcast_build_info{part="test"' in body and "dialcast_loop_lag_seconds" in body
        assert "process_resident_memory_bytes" in body
        status, kind, body = await get(monitor, "/metrics", "Accept: application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text") and body.endswith("# EOF\n")

    serving(test)


def test_health_is_200_with_the_state_of_each_part() -> None:
    async def test(monitor: Monitor) -> None:
        status, kind, body = await get(monitor, "/healthz")
        assert (status, kind) == (200, "application/json")
        found = json.loads(body)
        assert found["status"] == "ok" and found["parts"]["store"]["ok"] and found["parts"]["loop"]["ok"]

    serving(test)


def test_one_part_that_fails_makes_it_503_and_is_named() -> None:
    async def test(monitor: Monitor) -> None:
        status, _, body = await get(monitor, "/healthz")
        assert status == 503
        assert json.loads(body)["parts"]["store"] == {"ok": False, "error": "disk full"}

    serving(test, broken)


def test_an_event_loop_that_was_held_up_is_not_healthy() -> None:
    async def test(monitor: Monitor) -> None:
        monitor.lag_max = 0.2
        await asyncio.sleep(0.3)
        import time

        time.sleep(0.6)  # noqa: ASYNC251 - the fault itself
        await asyncio.sleep(0)
        status, _, body = await get(monitor, "/healthz")
        assert status == 503 and json.loads(body)["parts"]["loop"]["lag_s"] > 0.2

    serving(test)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET / HTTP/1.1", 404),
        ("GET /metrics/../etc/passwd HTTP/1.1", 404),
        ("POST /metrics HTTP/1.1", 405),
        ("DELETE /healthz HTTP/1.0", 405),
        ("\x16\x03\x01", 400),
        ("GET /metrics", 400),
        ("GET /metrics HTTP/1.1 more", 400),
    ],
)
def test_whatever_else_is_asked_is_refused_in_a_word(request_line: str, status: int) -> None:
    async def test(monitor: Monitor) -> None:
        answer = await say(monitor.address, f"{request_line}\r\n\r\n".encode("latin-1"))
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()) and len(answer) < 200

    serving(test)


def test_a_head_without_end_and_one_that_never_comes_cost_a_connection_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)

    async def test(monitor: Monitor) -> None:
        assert await say(monitor.address, b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 10_000) == b""
        assert await say(monitor.address, b"GET /metr") == b""
        assert (await get(monitor, "/healthz"))[0] == 200

    serving(test)


def test_strangers_who_sit_on_connections_leave_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)

    async def test(monitor: Monitor) -> None:
        assert monitor.address is not None
        sitting = [await asyncio.open_connection(*monitor.address) for _ in range(module.MAX_CONNECTIONS)]
        await asyncio.sleep(0.05)
        assert await say(monitor.address, b"GET /healthz HTTP/1.1\r\n\r\n") == b""
        await asyncio.sleep(0.5)
        assert (await get(monitor, "/healthz"))[0] == 200
        for _, writer in sitting:
            writer.close()

    serving(test)


def test_a_taken_port_and_no_port_are_no_reason_not_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(first: Monitor) -> None:
        assert first.address is not None
        second = Monitor("relay", well)
        await second.start(*first.address)
        assert second.address is None
        await second.stop()
        third = Monitor("test", well)
        await third.start("127.0.0.1", None)
        assert third.address is None
        await third.stop()

    serving(test)
    said = capsys.readouterr()
    assert "monitor.not_served" in said.out + said.err
    assert "operations.relay_port" in said.out + said.err
    assert (said.out + said.err).count("127.0.0.1") == 1
