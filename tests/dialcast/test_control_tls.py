"""A server without TLS before a relay with it: both logs say what to look at."""

import json
import subprocess
import sys
import time
from pathlib import Path

DIALCAST = (sys.executable, "-m", "dialcast")
HINT = "does control.tls_* match on both ends?"


def started(part: str, folder: Path, lines: str) -> "subprocess.Popen[str]":
    file = folder / f"{part}.yaml"
    file.write_text(f"log: {{format: json}}\noperations: {{as_port: null, relay_port: null}}\n{lines}")
    with (folder / f"{part}.log").open("w") as log:
        return subprocess.Popen((*DIALCAST, part, "-c", str(file)), stdout=subprocess.PIPE, stderr=log, text=True)


def said(log: Path, event: str, within: float = 30) -> list[dict[str, str]]:
    deadline = time.monotonic() + within
    while True:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        if (found := [line for line in lines if line["event"] == event]) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_both_ends_hint_at_tls_where_only_one_has_it(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*request, *names], check=True, capture_output=True)
    tls = f"{{hello_timeout: 2, tls_certificate: {certificate}, tls_key: {key}, tls_ca: {certificate}}}"
    relay = started("relay", tmp_path, f"control: {tls}\n")
    server = None
    try:
        assert relay.stdout is not None
        address = relay.stdout.readline().split()[1].removeprefix("control=")
        settings = (
            f'data_dir: {tmp_path}/data\nsip: {{port: 0}}\nxcap: {{port: null}}\ncontrol: {{connect: ["{address}"]}}\n'
        )
        server = started("as", tmp_path, settings)
        (unreachable,) = said(tmp_path / "as.log", "relay.unreachable")
        assert unreachable["error"] == f"it hung up before the greeting; {HINT}"
        (denied,) = said(tmp_path / "relay.log", "control.denied")
        assert denied["cause"] == f"no greeting came; {HINT}"
    finally:
        for process in filter(None, (relay, server)):
            process.terminate()
            process.wait(20)
            if process.stdout is not None:
                process.stdout.close()
