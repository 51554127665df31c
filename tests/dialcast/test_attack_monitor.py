"""The operator's port, asked by a web page that took its address, and by clients that never read."""

import asyncio
from contextlib import suppress

import pytest
from test_operations_http import say, serving

from dialcast import monitor as module
from dialcast.monitor import Monitor


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("attacker.example:9460", b"403"), ("attacker.example", b"403"), ("127.0.0.1:9460", b"200"),
        ("localhost:9460", b"200"), ("[::1]:9460", b"200"), ("prometheus-target", b"200"),
    ],
)  # fmt: skip
def test_a_page_whose_name_leads_to_loopback_learns_nothing(host: str, status: bytes) -> None:
    async def test(monitor: Monitor) -> None:
        answer = await say(monitor.address, f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert answer.split()[1] == status
        assert (b"dialcast" in answer) is (status == b"200")

    serving(test)


def test_clients_that_never_read_do_not_heap_up_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(monitor: Monitor) -> None:
        monkeypatch.setattr(module, "PATIENCE", 1.0)
        monkeypatch.setattr(monitor, "_answer", large)
        assert monitor.address is not None
        writers = []
        for _ in range(5):
            _, writer = await asyncio.open_connection(*monitor.address, limit=1)
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a socket's transport
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            writers.append(writer)
        async with asyncio.timeout(0.8):
            while monitor._open < 5:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        await asyncio.sleep(1.3)
        assert monitor._open == 0
        loop = asyncio.get_running_loop()
        held = [key.data for key in loop._selector.get_map().values() if key.events & 2]  # type: ignore[attr-defined]
        assert held == [], "nothing waits to be sent any more"
        for writer in writers:
            with suppress(ConnectionError):
                writer.close()

    async def large(head: bytes) -> tuple[int, str, bytes]:
        return 200, "text/plain", b"x" * 20_000_000

    serving(test)
