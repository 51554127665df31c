"""Runs the harnesses one after another, each in a process of its own, and says what they did.

An input that breaks a harness is written to `tests/fuzz_findings/<target>/`, where the ordinary tests replay it: they
fail until it is mended. Inputs that reached new code are kept in `.cache/fuzz/<target>/`, so a next run goes on there.
"""

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fuzz.target import FINDINGS, ROOT, Target

STARTUP = 60
"""Seconds a process may take beyond its fuzzing time before it counts as hanging."""
_LINE = re.compile(r"cov: (\d+) ft: (\d+)")
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run did: inputs tried, branches reached, inputs that broke the harness."""

    name: str
    seconds: int
    executed: int
    coverage: int
    findings: tuple[Path, ...]
    failure: str = ""

    @property
    def per_second(self) -> float:
        """Inputs a second."""
        return self.executed / max(1, self.seconds)


def fuzz(target: Target, seconds: int, seed: int) -> Outcome:
    """Run one harness for `seconds`. `seed` makes the run repeatable; 0 takes a random one."""
    corpus = ROOT / ".cache" / "fuzz" / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        (corpus / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    kept = FINDINGS / target.name
    kept.mkdir(parents=True, exist_ok=True)
    before = set(kept.iterdir())
    options = (
        str(corpus),
        f"-max_total_time={seconds}",
        f"-max_len={target.max_bytes}",
        f"-seed={seed}",
        f"-artifact_prefix={kept}/",
        "-timeout=5",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    )
    harness = [str(target.program())] if target.program else [sys.executable, "-m", "fuzz.child", target.name]
    command = [*harness, *options]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=seconds + STARTUP)
        told, status = (done.stdout + done.stderr).decode("utf-8", "replace"), done.returncode
    except subprocess.TimeoutExpired as error:
        told, status = (error.stderr or b"").decode("utf-8", "replace"), -1
    found = tuple(sorted(set(kept.iterdir()) - before))
    if not any(kept.iterdir()):
        kept.rmdir()
    executed, lines = _EXECUTED.findall(told), _LINE.findall(told)
    return Outcome(
        target.name,
        seconds,
        int(executed[-1]) if executed else 0,
        int(lines[-1][0]) if lines else 0,
        found,
        "\n".join(told.splitlines()[-25:]) if status or not lines else "",
    )
