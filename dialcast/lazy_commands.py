"""Commands of the parts, imported only when one of them is asked for: a server needs no camera, a relay no database."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from dialcast.interrupts import interruptible

USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""Click's UsageError, wherever this version of typer keeps it."""
PARTS: dict[str, tuple[str, str, str]] = {
    "reload": ("dialcast.live", "reload", "Have the server here read its configuration again."),
    "blocks": ("dialcast.live", "blocks", "List the blocked addresses and accounts; lift a block."),
    "calls": ("provisioning.calls_cli", "calls", "List who broadcast and who watched, when, how long."),
    "config": ("provisioning.cli", "config_app", "Look at and check the configuration."),
    "subscriber": ("provisioning.cli", "subscriber_app", "Manage the numbers that may register."),
    "channel": ("provisioning.channel_cli", "channel_app", "Private broadcasts: who may watch a number."),
    "live": ("dialcast.live", "live_app", "See and stop the broadcasts of the server on this host."),
    "phone": ("dialcast.phone_command", "phone", "The softphone: go live, watch, answer, dial codes."),
}
"""By name: the module, what in it is the command (a function or a group), and what it is for."""


class LazyCommands(TyperGroup):
    """The commands registered with typer, and then `PARTS`."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command; a mistake in its options is told in our words and typer's, without pydantic's."""
        try:
            return super().invoke(ctx)
        except USAGE_ERROR as error:
            vars(error)["message"] = str(vars(error)["message"]).removeprefix("Value error, ")
            raise

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer's Context is Click's
        """Every name, in the order of the help."""
        return list(dict.fromkeys([*super().list_commands(ctx), *PARTS]))

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """The command of this name, None if there is none."""
        if cmd_name in PARTS and cmd_name not in self.commands:
            self.commands[cmd_name] = _loaded(cmd_name)
        return super().get_command(ctx, cmd_name)


def _loaded(name: str) -> Any:
    module, attribute, short_help = PARTS[name]
    with interruptible():
        found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer()
        alone.command()(found)
        found = alone
    found.rich_markup_mode = None  # as typer has it for groups within groups: all help looks alike
    found._add_completion = False
    command = get_command(found)
    command.name, command.short_help = name, short_help
    return command
