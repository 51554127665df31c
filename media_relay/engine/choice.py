"""Which engine a relay runs with."""

from typing import Literal

import structlog

from media_relay.engine import Engine
from media_relay.engine.plain import PlainEngine

log = structlog.get_logger()


def new_engine(wanted: Literal["auto", "native", "plain"]) -> Engine:
    """The engine of this kind. Raises OSError where `native` was not built, or there is no descriptor for it."""
    if wanted == "plain":
        return PlainEngine()
    try:
        from media_relay.engine.native import NativeEngine  # noqa: PLC0415 - it may not have been built
    except ImportError as error:
        if wanted == "native":
            raise OSError(
                "relay.engine: the native engine was not built: install a C compiler and dialcast again"
            ) from error
        log.warning("relay.plain_engine", reason="the native engine was not built")
        return PlainEngine()
    return NativeEngine()
