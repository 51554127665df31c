"""What the operator's commands share: their options, opening the store, mistakes as one line each.

Exit codes: 0 done, 1 refused by what is stored, 2 wrong usage or configuration. Secrets are read from a prompt or
stdin, never from arguments, which any process on the host can see.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from provisioning.config import Config
from provisioning.database import StoreError
from provisioning.loader import ConfigError, load_config
from provisioning.problems import complain
from provisioning.store import DATABASE, Store
from provisioning.subscribers import SubscriberError

T = TypeVar("T")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", envvar="DIALCAST_CONFIG", help="Configuration file.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="FOLDER", help="Data directory; wins over the configuration.")
]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Mistakes as lines on stderr and an exit code instead of a traceback."""
    try:
        yield
    except (ConfigError, SubscriberError, StoreError) as error:
        complain(str(error))
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None


def load(file: Path | None, data_dir: Path | None) -> Config:
    """The configuration the options name. Raises ConfigError."""
    return load_config(file, overrides={"data_dir": str(data_dir)} if data_dir else None)


def with_store(config: Config, work: Callable[[Store], Awaitable[T]], *, make: bool = False) -> T:
    """Open the store, do some work, close it. Raises StoreError, also where there is none yet, unless `make`."""
    if not make and config.store.url is None and not (config.data_path / DATABASE).exists():
        raise StoreError(
            f"no database in {config.data_path}: name the server's folder or its configuration: "
            "--data-dir FOLDER, or -c FILE (or DIALCAST_CONFIG=FILE)"
        )

    async def run() -> T:
        store = await Store.open(config)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def check_value(kind: Any, value: str, what: str) -> None:
    """Raise SubscriberError, naming the argument, for a value that is none of this kind (of `value_types`)."""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        detail = error.errors()[0]
        raise SubscriberError(f"{what}: {detail.get('ctx', {}).get('error') or detail['msg']}") from None


def read_secret(what: str, from_stdin: bool, generate: Callable[[], str] | None) -> str:
    """A secret as the options say: made by `generate`, from stdin, or asked for. `what` is its name, as "password".

    Raises SubscriberError, and typer's Abort when the user leaves the prompt.
    """
    if from_stdin and generate:
        raise SubscriberError(f"--{what.lower()}-stdin and --generate exclude each other")
    if generate:
        return generate()
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise SubscriberError(f"no terminal to ask for a {what}: use --{what.lower()}-stdin or --generate")
    return str(typer.prompt(what[0].upper() + what[1:], hide_input=True, confirmation_prompt=True))


def complete_number(context: typer.Context, incomplete: str) -> list[str]:
    """Numbers that begin so, for the shell's completion; none where there is no store yet."""
    try:
        config = load(context.params.get("config_file"), context.params.get("data_dir"))
        known = with_store(config, lambda store: store.credentials.all())
    except (ConfigError, StoreError):
        return []
    names = [account.aor.removesuffix(f"@{config.domain}") for account in known]
    return [name for name in names if name.startswith(incomplete)]


NumberArgument = Annotated[
    str,
    typer.Argument(
        metavar="NUMBER",
        help="Phone number, digits only; NUMBER@DOMAIN in a further domain.",
        autocompletion=complete_number,
    ),
]
