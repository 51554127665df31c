"""Which engine a relay runs with. `python -m media_relay.engine.choice` says why the native one is not there, if so."""

import sys
from typing import Literal

import structlog

from media_relay.engine import Engine
from media_relay.engine.plain import PlainEngine

REMEDY = "apt-get install gcc python3-dev libsrtp2-dev, then install dialcast again (make install)"

log = structlog.get_logger()


def new_engine(wanted: Literal["auto", "native", "plain"]) -> Engine:
    """The engine of this kind. Raises OSError where `native` was not built, or there is no descriptor for it."""
    if wanted == "plain":
        return PlainEngine()
    try:
        from media_relay.engine.native import NativeEngine  # noqa: PLC0415 - it may not have been built
    except ImportError as error:
        if wanted == "native":
            raise OSError(f"relay.engine: {missing(error)}") from error
        log.warning("relay.plain_engine", reason=missing(error))
        return PlainEngine()
    return NativeEngine()


def kind_of(engine: Engine) -> Literal["native", "plain"]:
    """Which one this is, for operators."""
    return "plain" if isinstance(engine, PlainEngine) else "native"


def missing(error: ImportError) -> str:
    """Why there is no native engine, and what to do about it."""
    why = "was not built" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
    return f"the native engine {why}: {REMEDY}"


def main() -> None:
    """Say nothing where the native engine is there, else one line."""
    try:
        import media_relay.engine._native  # noqa: F401, PLC0415
    except ImportError as error:
        print(f"{missing(error)}. Until then relays run the plain one.", file=sys.stderr)


if __name__ == "__main__":
    main()
