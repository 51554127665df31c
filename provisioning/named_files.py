"""What a configuration names outside itself: files, the data directory, the database driver. Looked at before a start,
so that what is missing is told with its key instead of by an errno in the middle of it. Nothing is made or opened for
longer than a look.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from provisioning.config import Config

FILES: dict[str, tuple[str, ...]] = {
    "tls": ("certificate", "key", "ca"),
    "control": ("tls_certificate", "tls_key", "tls_ca"),
    "xcap": ("tls_certificate", "tls_key"),
}
"""By section, the keys that name a file to be read; secure WebSocket uses those of `tls`."""
EVERYTHING = (*FILES, "data_dir", "store")
RELAY = ("control",)
"""What a relay uses; the other files of a shared configuration may lie on another host."""

Complaint = tuple[tuple[str, ...], str]
"""A key, and what is wrong with what it names."""


def unusable(config: Config, parts: tuple[str, ...]) -> Iterator[Complaint]:
    """What these parts of the configuration (of `EVERYTHING`) name and cannot be used."""
    for part in parts:
        for name in FILES.get(part, ()):
            path: Path | None = getattr(getattr(config, part), name)
            if path is not None and (why := _unreadable(path)):
                yield (part, name), f"{path}: cannot be read: {why}"
    if "data_dir" in parts and (why := _unwritable(config.data_path)):
        yield ("data_dir",), f"{config.data_path}: cannot be used: {why}"
    if "store" in parts and config.store.url is not None and (why := _no_driver(config.store.url.get_secret_value())):
        yield ("store", "url"), why


def _unreadable(path: Path) -> str | None:
    try:
        path.open("rb").close()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be kept there; a folder that can still be made is none the worse."""
    nearest = folder
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        return f"{nearest} is no directory"
    return None if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} is not writable"


def _no_driver(url: str) -> str | None:
    """Why no database can be reached by such a URL; its words never hold the URL, which may hold a password."""
    from sqlalchemy import make_url  # noqa: PLC0415 - a relay reads its configuration too, and has no database
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError  # noqa: PLC0415

    try:
        named = make_url(url)
    except ArgumentError:
        return "is no database URL, like postgresql+psycopg://user@host/name"
    try:
        named.get_dialect().import_dbapi()
    except NoSuchModuleError:
        return f"there is no database driver {named.drivername!r}; use postgresql+psycopg or sqlite"
    except ImportError as error:
        install = "pip install '.[postgresql]' in the checkout"
        return f"the driver of {named.drivername!r} is not installed ({error.name}): {install}"
    return None
