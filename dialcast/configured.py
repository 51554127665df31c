"""The `--config` option, and the configuration it names."""

from pathlib import Path
from typing import Annotated

import typer

from provisioning.config import Config
from provisioning.loader import ConfigError, load_config
from provisioning.problems import complain

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="YAML file; without one: loopback, subscribers 1001-1009.",
        envvar="DIALCAST_CONFIG",
        dir_okay=False,
    ),
]
Overrides = dict[str, object]


def loaded(path: Path | None, overrides: Overrides | None = None, needed: tuple[str, ...] = ()) -> Config:
    """The configuration; mistakes are told one a line, and end the command with status 2.

    `needed` are the parts whose files must be there, as for `load_config`.
    """
    try:
        return load_config(path, overrides=overrides, needed=needed)
    except ConfigError as error:
        complain(str(error))
        raise typer.Exit(2) from None
