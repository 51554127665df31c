"""`dialcast reload` of a supervised server: every part reads the file once, and says so once."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

DIALCAST = (sys.executable, "-m", "dialcast")


def test_every_part_logs_a_reload_by_hand_once(tmp_path: Path) -> None:
    file, log = tmp_path / "dialcast.yaml", tmp_path / "log"
    ports = "sip: {port: 0}\nxcap: {port: null}\noperations: {as_port: null, relay_port: null}\n"
    file.write_text(f"data_dir: {tmp_path}/data\nlog: {{format: json}}\n{ports}")

    def reloads() -> Counter[str]:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return Counter(line["part"] for line in lines if line["event"] == "config.reloaded")

    command = (*DIALCAST, "up", "-c", str(file))
    with log.open("w") as written, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith(b"ready")
            for count, change in enumerate(("service: {max_views_per_number: 1}", "cross_domain_calls: true"), 1):
                with file.open("a") as more:
                    more.write(f"{change}\n")
                subprocess.run((*DIALCAST, "reload", "-c", str(file)), check=True, capture_output=True)
                deadline = time.monotonic() + 10
                while reloads()["relay"] < count and time.monotonic() < deadline:
                    time.sleep(0.05)
                time.sleep(0.5)  # for one too many
                assert reloads() == {"as": count, "up": count, "relay": count}
        finally:
            server.terminate()
