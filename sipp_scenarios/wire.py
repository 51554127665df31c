"""A bare socket, for what SIPp cannot be made to send: half messages, floods, other people's messages again."""

import socket
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress

RESPONSE_SECONDS = 5.0
AGAIN_SECONDS = 0.06
"""After which a message comes again: not before SIPp waits for something, as it takes nothing while it sends."""


def address(server: str) -> tuple[str, int]:
    """HOST:PORT as the socket module wants it."""
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


def options(server: str, host: str, port: int, *headers: str, transport: str = "UDP") -> bytes:
    """OPTIONS for the server itself, as from `host`:`port`."""
    name = uuid.uuid4().hex[:12]
    lines = [
        f"OPTIONS sip:{server} SIP/2.0",
        f"Via: SIP/2.0/{transport} {host}:{port};branch=z9hG4bK{name};rport",
        f"From: <sip:probe@{server}>;tag={name}",
        f"To: <sip:{server}>",
        f"Call-ID: {name}",
        "CSeq: 1 OPTIONS",
        "Max-Forwards: 70",
        *headers,
        "Content-Length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class Datagrams:
    """A UDP socket at `host`, on a free port; use it as a context manager."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> "Datagrams":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, server: str, *messages: bytes) -> None:
        """Sends datagrams as fast as it goes."""
        for message in messages:
            self._socket.sendto(message, address(server))

    def received(self, within: float = RESPONSE_SECONDS, most: int = 1) -> list[str]:
        """What comes until `most` datagrams are here, or time is up."""
        deadline, found = time.monotonic() + within, list[str]()
        while len(found) < most and (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                found.append(self._socket.recv(65_535).decode(errors="replace"))
            except TimeoutError:
                break
        return found


def answers(server: str, host: str, tries: int = 3) -> bool:
    """True if the server at HOST:PORT answers OPTIONS from `host`, whatever it says, within a second a try."""
    with Datagrams(host) as probe:
        for _ in range(tries):
            probe.send(server, options(server, probe.host, probe.port))
            if probe.received(1):
                return True
    return False


class Doubler:
    """Between one phone and the server: from its credentials on, what the phone sends arrives twice.

    (The challenge itself is sent without state, and so is sent twice, which SIPp cannot bear.) Use it as a context
    manager."""

    def __init__(self, host: str, server: str) -> None:
        self.host, self._server, self.doubled = host, address(server), 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self._socket.settimeout(0.1)
        self.port: int = self._socket.getsockname()[1]
        self._open = True
        self._thread = threading.Thread(target=self._pass_on, daemon=True)

    def __enter__(self) -> "Doubler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()
        self._socket.close()

    def _pass_on(self) -> None:
        phone: tuple[str, int] | None = None
        known = False
        while self._open:
            try:
                data, sender = self._socket.recvfrom(65_535)
            except TimeoutError:
                continue
            if sender != self._server:
                phone = sender
                self._socket.sendto(data, self._server)
                if known := known or b"Authorization:" in data:
                    threading.Timer(AGAIN_SECONDS, self._again, (data,)).start()
            elif phone is not None:
                self._socket.sendto(data, phone)

    def _again(self, data: bytes) -> None:
        with suppress(OSError):  # closed meanwhile
            self._socket.sendto(data, self._server)
            self.doubled += 1


def over_tcp(server: str, host: str, pieces: Iterable[bytes], every: float, within: float = RESPONSE_SECONDS) -> str:
    """Sends pieces over a connection, `every` so many seconds one; what came until it is closed or time is up.

    Ends at once after a whole answer. A connection the server closes meanwhile ends it, too.
    """
    text = b""
    with socket.create_connection(address(server), 5, (host, 0)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(every)
            connection.settimeout(within)
            while b"\r\n\r\n" not in text and (data := connection.recv(65_535)):
                text += data
        except TimeoutError:
            return text.decode(errors="replace") + "(still open)"
        except ConnectionError:
            return text.decode(errors="replace")
    return text.decode(errors="replace")
