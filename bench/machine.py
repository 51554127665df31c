"""What all benchmarks of servers share: the machine they ran on, a core for the server, a line of progress."""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

SIGNALLING: Final = {"kamailio": ("kamailio", "-v"), "sipp": ("sipp", "-v")}


class BenchError(Exception):
    """The benchmark cannot run; the text names the cause and the remedy."""


def described(programs: Mapping[str, Sequence[str]] = SIGNALLING) -> dict[str, object]:
    """Processor, cores, kernel, load and versions; `None` for a program that is not there.

    `programs` are the others that take part, each with the command that says its version first.
    """
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_average_at_start": os.getloadavg()[0],
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "dialcast": version("dialcast"),
            "commit": _first_line("git", "describe", "--always", "--dirty"),
            "python": platform.python_version(),
            **{name: _first_line(*command) for name, command in programs.items()},
        },
    }


def keep_off_core(core: int) -> None:
    """This process and those it will start leave `core` to the server, if there is another."""
    others = os.sched_getaffinity(0) - {core}
    if others:
        os.sched_setaffinity(0, others)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time so far of these processes, to the nanosecond: their clocks (clock_getcpuclockid(3))."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def resident_bytes(pids: Iterable[int]) -> int:
    """Memory of these processes that is really there (VmRSS)."""
    found = (re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()) for pid in pids)
    return sum(1024 * int(match[1]) for match in found if match)


def stop(process: "subprocess.Popen[bytes]", patience: float) -> None:
    """SIGTERM, then after so many seconds SIGKILL."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tell(doing: str = "") -> None:
    """What is being done, in one line on a terminal that the next one overwrites; nothing clears it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{doing}", end="", file=sys.stderr, flush=True)
    elif doing:
        print(doing, file=sys.stderr, flush=True)


def _first_line(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    said = result.stdout or result.stderr
    return next((line.strip() for line in said.splitlines() if line.strip()), "")
