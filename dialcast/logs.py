"""Structured events on stderr: JSON lines for machines, aligned text for people; below the level they cost nothing.

One event is one line, whatever a stranger put into it: JSON escapes control characters, and for people `_inert` does,
so that nothing from the network starts a line of its own or speaks to the terminal. `_discreet` takes out passwords and
credentials that got that far. What no code of ours catches or writes (asyncio, Twisted, threads, libraries, the
interpreter) would go to stderr as it is; `nothing_else_writes` leads it the same way.
"""

import asyncio
import logging
import sys
import threading
import warnings
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from protocols.printable import discreet, printable
from provisioning.config import LogConfig

if TYPE_CHECKING:
    from twisted.logger import LogEvent

_METHODS = ("debug", "info", "warning", "error", "critical", "exception", "log", "msg")
_Leveled: Any = type("Leveled", (structlog.make_filtering_bound_logger(logging.DEBUG),), {})
"""The class of all our loggers. They are made once and kept, so a changed level changes their class."""


def set_level(level: str) -> None:
    """Write events of this severity and above, from now on, in loggers that exist already too."""
    source = structlog.make_filtering_bound_logger(getattr(logging, level.upper()))
    for name in _METHODS:
        setattr(_Leveled, name, getattr(source, name))


def configure(config: LogConfig, part: str) -> None:
    """Set up logging for this process; every event carries its wall-clock time `ts` (Unix seconds) and its `part`."""
    structlog.contextvars.bind_contextvars(part=part)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt=None, key="ts"),
        structlog.processors.format_exc_info,
        _discreet,
    ]
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if config.format == "console":
        shared[2] = structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False)
        shared.append(_inert)
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    set_level(config.level)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=_Leveled,
        # One write a line: the lines of several processes must not run into each other.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def nothing_else_writes(loop: asyncio.AbstractEventLoop) -> None:
    """Write as events of ours what the loop, Twisted, `logging`, `warnings`, threads and the interpreter have to say.

    For the whole process, once, after `configure`. Of libraries only warnings and worse are of interest; what they say
    below may hold whole messages.
    """
    from twisted.logger import LogLevel, formatEvent, globalLogBeginner

    log = structlog.get_logger("dialcast.logs", **structlog.contextvars.get_contextvars())  # threads have their own

    def loop_failed(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        said = str(context.get("message", "")).partition("(")[0]  # behind it come arguments, even whole messages
        log.error("server.failed", said=said, exc_info=context.get("exception"))

    def twisted_said(event: "LogEvent") -> None:
        level, failure = event.get("log_level"), event.get("log_failure") or event.get("failure")  # that of `log.err`
        if level is None or level < LogLevel.warn:
            return
        caught = None if failure is None else (failure.type, failure.value, failure.getTracebackObject())
        # The text of `log.err` is the traceback over again.
        said = str(event["why"] or "unhandled error") if "why" in event else formatEvent(event) or "unhandled error"
        if level is LogLevel.warn:
            log.warning("library.warned", said=said, exc_info=caught)
        else:
            log.error("server.failed", said=said, exc_info=caught)

    def thread_failed(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_type is not SystemExit:
            caught = (failed.exc_type, failed.exc_value, failed.exc_traceback)
            log.error("server.failed", said="thread", exc_info=caught)

    def ignored(failed: "sys.UnraisableHookArgs") -> None:
        caught = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        log.error("server.failed", said=failed.err_msg or "exception ignored", exc_info=caught)

    def warned(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        log.warning("library.warned", said=f"{filename}:{lineno}: {category.__name__}: {message}")

    loop.set_exception_handler(loop_failed)
    observers: Any = [twisted_said]  # a function is as good as what the interface asks for
    globalLogBeginner.beginLoggingTo(observers, discardBuffer=True, redirectStandardIO=False)
    logging.basicConfig(handlers=[_FromLogging(log)], level=logging.WARNING, force=True)
    threading.excepthook, sys.unraisablehook = thread_failed, ignored
    warnings.showwarning = warned


class _FromLogging(logging.Handler):
    """Events from the standard library's `logging`, which asyncio and other libraries use."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """One record."""
        try:
            said = record.getMessage()
        except Exception:  # arguments that do not fit: `logging` would write of that to stderr
            said = str(record.msg)
        bad = record.levelno >= logging.ERROR
        write, event = (self._log.error, "server.failed") if bad else (self._log.warning, "library.warned")
        write(event, said=said, source=record.name, exc_info=record.exc_info)


def _discreet(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """The event without passwords and credentials, wherever they came from."""
    for key, value in event.items():
        event[key] = _without_secrets(value)
    return event


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return discreet(value)
    if isinstance(value, Mapping):
        return {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return value


def _inert(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """What is to be read by people, without a character that a terminal would obey; a traceback is indented."""
    for key, value in event.items():
        if key == "exception":
            event[key] = "\n".join(f"  | {printable(line)}" for line in str(value).split("\n"))
        elif isinstance(value, str):
            event[key] = printable(value)
        elif not (shown := repr(value)).isprintable():
            event[key] = printable(shown)
    return event
