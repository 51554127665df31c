"""Where the server listens: a free port serves UDP and TCP alike, a taken one is named."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from ua import running

from protocols.net import Flow
from sip_app.transport import Limits, Transports


class Deaf:
    def data_received(self, data: bytes, flow: Flow) -> None: ...

    def flow_closed(self, flow: Flow) -> None: ...


def test_a_port_that_is_free_for_tcp_only_is_passed_over() -> None:
    """Port 0 means one number for both transports, even when the first one tried is taken for UDP."""

    async def listen() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as occupied:
            occupied.bind(("127.0.0.1", 0))
            taken = occupied.getsockname()[1]
            reactor = FirstPort(asyncio.get_running_loop(), taken)
            transports = Transports(Deaf(), reactor, Limits())
            transports.listen("127.0.0.1", 0, tcp=True)
            assert transports.bound["udp"].port == transports.bound["tcp"].port != taken
            await transports.close()

    asyncio.run(listen())


def test_a_taken_port_is_an_error_that_names_it(tmp_path: Path) -> None:
    async def start() -> None:
        with socket.socket() as occupied:
            occupied.bind(("127.0.0.1", 0))
            occupied.listen()
            port = occupied.getsockname()[1]
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
                async with running(tmp_path, port=port):
                    pass

    asyncio.run(start())


class FirstPort(AsyncioSelectorReactor):
    """Is offered a certain TCP port the first time that it asks for any."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        super().__init__(loop)
        self.ports = [port]

    def listenTCP(self, port: int, *arguments: Any, **options: Any) -> Any:  # noqa: N802 (Twisted's name)
        return super().listenTCP(self.ports.pop() if port == 0 and self.ports else port, *arguments, **options)
