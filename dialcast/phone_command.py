"""`dialcast phone`: the softphone, where its libraries are installed, with the configuration's `terminal` section."""

import typer

from dialcast.configured import ConfigFile, loaded

NEEDS_PHONE = "needs the softphone's libraries: pip install '.[phone]' in the checkout (there is no {})"

try:
    from terminal_client.cli import phone
except ModuleNotFoundError as missing:
    lacking = NEEDS_PHONE.format(missing.name)
    phone = typer.Typer(rich_markup_mode=None)

    @phone.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    def phone_missing() -> None:
        """The softphone; its libraries are not installed here."""
        typer.echo(f"dialcast phone {lacking}", err=True)
        raise typer.Exit(1)

else:

    @phone.callback()
    def defaults(context: typer.Context, config: ConfigFile = None) -> None:
        """Read the defaults of every call."""
        context.obj = loaded(config).phone
