"""Control values (`protocols.control`) as names and JSON bodies, and back; bounded, and no error tells a secret."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from protocols.control import Command, ControlError, Event, Reply, Value

MAX_BODY_BYTES = 60 * 1024
"""Below the 64 KiB at which an AMP value ends."""

_TYPES: dict[str, type[Any]] = {kind.__name__: kind for union in (Command, Reply, Event) for kind in union.__args__}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in _TYPES.items()}


def encode(value: Value) -> tuple[str, bytes]:
    """Name and JSON body of one value; `ControlError` when it would not fit an AMP box."""
    name = type(value).__name__
    body: bytes = _ADAPTERS[name].dump_json(value)
    if len(body) > MAX_BODY_BYTES:
        raise ControlError("limit", f"{name} of {len(body)} bytes exceeds {MAX_BODY_BYTES}")
    return name, body


def decode(name: str, body: bytes) -> Value:
    """The value behind name and body; `ControlError` for anything else."""
    adapter = _ADAPTERS.get(name)
    if adapter is None:
        raise ControlError("unsupported", f"no such control message: {name[:40]!r}")
    if len(body) > MAX_BODY_BYTES:
        raise ControlError("limit", f"{name} of {len(body)} bytes exceeds {MAX_BODY_BYTES}")
    try:
        value: Value = adapter.validate_json(body)
    except ValidationError as error:
        # Only where and what kind of error: the offending input may hold a password.
        where = ", ".join(f"{'.'.join(map(str, e['loc']))} {e['type']}" for e in error.errors()[:3])
        raise ControlError("bad-request", f"{name}: {where}") from None
    return value
