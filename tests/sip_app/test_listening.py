"""Where the server listens: a free port serves UDP and TCP alike, a taken one is named."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from ua import running

from protocols.net import Flow
from sip_app.transport import Limits, Transports, listening


class Deaf:
    def data_received(self, data: bytes, flow: Flow) -> None: ...

    def flow_closed(self, flow: Flow) -> None: ...

    def admits(self, flow: Flow) -> bool:
        return True


def test_a_port_that_is_free_for_tcp_only_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 0 means one number for both transports, even when the first one tried is taken for UDP."""

    async def listen() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as occupied:
            occupied.bind(("127.0.0.1", 0))
            taken = occupied.getsockname()[1]
            offered = iter([taken])
            bind = listening.bound_socket

            def offering(kind: socket.SocketKind, host: str, port: int, dscp: int, **options: Any) -> socket.socket:
                return bind(kind, host, port or next(offered, 0), dscp, **options)

            monkeypatch.setattr(listening, "bound_socket", offering)
            transports = Transports(Deaf(), AsyncioSelectorReactor(asyncio.get_running_loop()), Limits())
            transports.listen("127.0.0.1", 0, tcp=True)
            assert next(offered, None) is None
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
