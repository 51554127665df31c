"""The house keeps its order: imports run one way, the core does no I/O, and the package's map is true."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("sip_app", "media_relay", "terminal_client", "provisioning")
MAY_IMPORT = {
    "protocols": {"protocols"},
    "provisioning": {"protocols", "provisioning"},
    "sip_app": {"protocols", "sip_app", "provisioning.config"},
    "media_relay": {"protocols", "media_relay", "provisioning.config"},
    "terminal_client": {"protocols", "terminal_client", "provisioning.config"},
}
IO_MODULES = {
    "asyncio",
    "socket",
    "ssl",
    "select",
    "threading",
    "subprocess",
    "time",
    "datetime",
    "twisted",
    "os",
    "random",
}
# AMP commands are declared as Twisted classes; the module holds nothing else.
DECLARES_AMP = "protocols/control_amp.py"
LONGEST_MODULE = 420


def modules(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    ours = {"dialcast", "protocols", *PARTS}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if name.split(".")[0] in ours
        and not any(name == allowed or name.startswith(f"{allowed}.") for allowed in MAY_IMPORT[package])
    ]
    assert not wrong


def test_the_core_has_no_io_no_clock_and_no_framework() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("protocols")
        if str(path.relative_to(ROOT)) != DECLARES_AMP
        for name in imports(path)
        if name.split(".")[0] in IO_MODULES
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["dialcast", "protocols", *PARTS])
def test_a_module_says_what_it_is_for_and_has_one_subject(package: str) -> None:
    for path in modules(package):
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
        assert text.count("\n") <= LONGEST_MODULE, f"{path} is too long for one subject"
