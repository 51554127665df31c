"""The command line and the composition root: builds the parts, wires them to each other, supervises them.

`command_line` the commands, begun by `__main__`, `lazy_commands` those of the parts, `configured` their
configuration, `phone_command` the softphone's; `interrupts` Ctrl-C while it loads; `compose` an application server or
a relay as one process; `supervisor` both together (`dialcast up`); `live` the operator's commands; `logs` structured
events; `demo` and `judge` the demonstration.
"""

from importlib.metadata import PackageNotFoundError, version


def version_here() -> str:
    """Ours, as installed."""
    try:
        return version("dialcast")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"
