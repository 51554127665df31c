"""One harness under libFuzzer, in a process of its own: `python -m fuzz.child NAME <libFuzzer options>`.

Only our parsers are instrumented: the libraries below them are theirs to fuzz.
"""

import importlib
import sys

import atheris

with atheris.instrument_imports(
    include=[
        "protocols",
        "sip_app.diversion.codes",
        "sip_app.transport.datagrams",
        "sip_app.broadcast.operator",
        "sip_app.xcap",
        "provisioning.loader",
        "dialcast.monitor",
    ]
):
    registry = importlib.import_module("fuzz.registry")


def main() -> None:
    """Fuzz the target named first; everything behind is libFuzzer's. Does not return."""
    name, *options = sys.argv[1:]
    atheris.Setup([f"fuzz-{name}", *options], registry.TARGETS[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
