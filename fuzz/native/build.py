"""Compiles the harnesses in C into `.cache/native`, once for each state of the sources."""

import hashlib
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "media_relay" / "engine" / "csrc"
HARNESSES = Path(__file__).parent
BUILT = ROOT / ".cache" / "native"
STRICT = ("-Wall", "-Wextra", "-Werror")
COMPILE = ("-std=c11", "-D_GNU_SOURCE", f"-iquote{CSRC}", f"-iquote{HARNESSES}")
"""Quoted includes only: the engine's `limits.h` must not hide the system's."""
CHECKED = ("-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined")
SMALL = ("-DMAX_EVENTS=64", "-DSOCKET_EVENTS=64", "-DBATCH_PACKETS=40")
"""What inputs of some thousand bytes would not fill."""


class NoCompiler(OSError):
    """What this needs is not installed; its text says what to do."""


def engine_sources() -> list[Path]:
    """The engine without its face to Python."""
    return sorted(path for path in CSRC.glob("*.c") if path.name not in ("arguments.c", "module.c"))


def fuzzer(name: str) -> Path:
    """The harness under libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer."""
    return _built("clang", f"{name}-fuzzer", [name], [*CHECKED, *SMALL, "-fsanitize=fuzzer,address,undefined"])


def replayer(name: str) -> Path:
    """The harness as a program that takes files, under the same sanitizers."""
    return _built("gcc", f"{name}-replay", [name, "replay"], [*CHECKED, *SMALL, "-fsanitize=address,undefined"])


def threads(sanitizer: str = "") -> Path:
    """The engine on its thread, driven from others; `sanitizer` may be `thread`, `address`, or nothing."""
    options = [*CHECKED, f"-fsanitize={sanitizer}"] if sanitizer else ["-O2"]
    return _built("gcc", f"threads-{sanitizer or 'plain'}", ["threads"], options)


def lint() -> None:
    """Every file under the compiler's warnings. Raises CalledProcessError when there is one."""
    python = f"-I{sysconfig.get_path('include')}"
    limited = "-DPy_LIMITED_API=0x030B0000"
    for source in (*sorted(CSRC.glob("*.c")), *sorted(HARNESSES.glob("*.c"))):
        command = [_compiler("gcc"), *COMPILE, *STRICT, python, limited, "-O2", "-c", "-o", os.devnull, str(source)]
        subprocess.run(command, check=True)


def _built(compiler: str, name: str, harness: list[str], options: list[str]) -> Path:
    sources = [*(HARNESSES / f"{each}.c" for each in harness), *engine_sources()]
    program = _compiler(compiler)
    state = hashlib.sha256(repr((program, options)).encode())
    for path in sorted({*sources, *CSRC.glob("*.h"), *HARNESSES.glob("*.h")}):
        state.update(path.read_bytes())
    built = BUILT / f"{name}-{state.hexdigest()[:16]}"
    if built.exists():
        return built
    BUILT.mkdir(parents=True, exist_ok=True)
    for old in BUILT.glob(f"{name}-*"):
        old.unlink(missing_ok=True)
    fresh = built.with_suffix(f".{os.getpid()}")
    command = [program, *COMPILE, *options, "-o", str(fresh), *map(str, sources), "-lm", "-lpthread"]
    subprocess.run(command, check=True)
    fresh.replace(built)
    return built


def problem() -> str:
    """Why the harnesses in C cannot be fuzzed here; empty where they can."""
    try:
        _compiler("clang")
    except NoCompiler as error:
        return str(error)
    return ""


def _compiler(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        package = "clang libclang-rt-14-dev" if name == "clang" else "gcc libc6-dev"
        raise NoCompiler(f"{name} is not installed: apt-get install {package}")
    return found
