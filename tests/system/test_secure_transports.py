"""Stock phones and a browser over TLS and secure WebSocket: they register and dial a service code."""

import base64
import http.server
import json
import os
import queue
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode

import pytest
from baresip import Baresip
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from likeness import loudness, samples
from live import going_live
from server import PASSWORDS, Server

DOMAIN = "dialcast.internal"
PAGE = Path(__file__).with_name("web_phone.html")


class Pages(http.server.BaseHTTPRequestHandler):
    """Gives the page and takes what it saw."""

    seen: queue.Queue[list[str]]

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE.read_bytes())

    def do_POST(self) -> None:
        self.seen.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the base class's name)
        """Says nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[http.server.ThreadingHTTPServer]:
    """Where the page comes from."""
    pages = type("Site", (Pages,), {"seen": queue.Queue()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), pages) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, site: http.server.ThreadingHTTPServer) -> Iterator[Server]:
    """A server with a trial certificate; pages may come from `site` only."""
    settings = {
        "tls.port": "0",
        "websocket.secure_port": "0",
        "websocket.origins": json.dumps([f"http://127.0.0.1:{site.server_port}"]),
    }
    with Server(tmp_path_factory.mktemp("secure"), settings=settings) as running:
        yield running


def certificate(server: Server) -> Path:
    return server.data / "trial-tls.pem"


def assert_forwarded(server: Server, number: str) -> None:
    """The server took the code that `number` dialled, over the connection it registered on."""
    server.event("registrar.bound", 10, aor=f"{number}@{DOMAIN}")
    server.event("code.accepted", 10, aor=f"{number}@{DOMAIN}")


def test_baresip_watches_a_broadcast_over_tls(secure: Server, tmp_path: Path) -> None:
    """Signalling is secure, media is plain RTP: picture and sound come as over any other transport."""
    tls = secure.addresses["tls"]
    viewer = Baresip(
        tmp_path / "viewer", "1004", registrar=tls, password=PASSWORDS["1004"], transport="tls", ca=certificate(secure)
    )
    with going_live(tmp_path, secure, "1001"), viewer:
        viewer.registered()
        viewer.dial(f"sip:1001@{tls};transport=tls")
        viewer.established()
        viewer.sees_frames(25, 20)
        viewer.hang_up()
        assert loudness(samples(viewer.heard())) > 0.005


def test_baresip_registers_and_dials_over_tls(secure: Server, tmp_path: Path) -> None:
    tls = secure.addresses["tls"]
    phone = Baresip(
        tmp_path / "baresip", "1002", registrar=tls, password=PASSWORDS["1002"], transport="tls", ca=certificate(secure)
    )
    with phone:
        phone.registered()
        phone.dial(f"sip:*21*1005%23@{tls};transport=tls")
        phone.established()
        phone.closed()
    assert_forwarded(secure, "1002")


LINPHONE = """\
[sip]
sip_port=-1
sip_tcp_port=-1
sip_tls_port=-1
verify_server_certs=1
verify_server_cn=0
root_ca={ca}
register_only_when_network_is_up=0
use_ipv6=0
default_proxy=0
[proxy_0]
reg_proxy=<sip:{tls};transport=tls>
reg_identity=sip:1003@{domain}
reg_expires=600
reg_sendregister=1
[auth_info_0]
username=1003
passwd={password}
realm={domain}
"""


def test_linphone_registers_and_dials_over_tls(secure: Server, tmp_path: Path) -> None:
    """Its name check knows no addresses (mbedTLS), so only the chain is verified."""
    (tmp_path / ".local/share/linphone").mkdir(parents=True)
    settings, tls = tmp_path / "linphonerc", secure.addresses["tls"]
    settings.write_text(LINPHONE.format(ca=certificate(secure), tls=tls, domain=DOMAIN, password=PASSWORDS["1003"]))
    phone = subprocess.Popen(
        [tool("linphonec"), "-c", str(settings), "-d", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    try:
        assert phone.stdin is not None
        secure.event("registrar.bound", 10, aor=f"1003@{DOMAIN}")
        for command, reply in (
            ("soundcard use files", "Using wav files"),
            (f"call sip:*21*1005%23@{tls};transport=tls", "connected."),
        ):
            phone.stdin.write(f"{command}\n".encode())
            phone.stdin.flush()
            until(phone, reply, 10)
        assert_forwarded(secure, "1003")
        phone.communicate(b"quit\n", timeout=15)
    finally:
        phone.kill()


def test_a_page_in_chromium_registers_and_dials_over_secure_websocket(
    secure: Server, site: http.server.ThreadingHTTPServer, tmp_path: Path
) -> None:
    asked = {
        "wss": f"wss://{secure.addresses['wss']}/",
        "number": "1001",
        "password": PASSWORDS["1001"],
        "dial": "*21*1005%23",
    }
    with chromium(f"http://127.0.0.1:{site.server_port}/?{urlencode(asked)}", certificate(secure), tmp_path):
        seen = site.RequestHandlerClass.seen.get(timeout=20)  # type: ignore[attr-defined]  # ours
    statuses = [line.split()[1] for line in seen if line.startswith("SIP/2.0") and line.split()[1] >= "200"]
    assert statuses == ["401", "200", "407", "200", "200"], seen
    assert any("sip:1001@page.invalid;transport=ws" in line for line in seen)
    secure.event("code.accepted", 5, aor=f"1001@{DOMAIN}")


def test_a_page_from_elsewhere_is_turned_away(
    secure: Server, site: http.server.ThreadingHTTPServer, tmp_path: Path
) -> None:
    asked = {"wss": f"wss://{secure.addresses['wss']}/", "number": "1001", "password": "", "dial": "1"}
    elsewhere = f"http://localhost:{site.server_port}/?{urlencode(asked)}"
    with chromium(elsewhere, certificate(secure), tmp_path):
        assert site.RequestHandlerClass.seen.get(timeout=20) == ["error"]  # type: ignore[attr-defined]  # ours


def until(process: subprocess.Popen[bytes], text: str, within: float) -> None:
    """Reads what the process prints until it has said `text`."""
    assert process.stdout is not None
    deadline, said = time.monotonic() + within, b""
    heard = select.poll()  # select() knows no descriptor beyond 1,023
    heard.register(process.stdout, select.POLLIN)
    while text.encode() not in said:
        readable = heard.poll(1000 * max(0.0, deadline - time.monotonic()))
        assert readable, f"no {text!r} in {said!r}"
        said += os.read(process.stdout.fileno(), 65_536)


@contextmanager
def chromium(url: str, believed: Path, folder: Path) -> Iterator[None]:
    """A headless browser on a page, which believes one certificate more than usual."""
    key = x509.load_pem_x509_certificate(believed.read_bytes()).public_key()
    digest = sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    browser = subprocess.Popen(
        [
            *(tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={folder}/profile", "--remote-debugging-port=0", "--no-proxy-server"),
            *(f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}", url),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        browser.terminate()
        browser.wait(10)


def tool(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"{name} is not installed: tests/system/debian_tools.sh installs it"
    return path
