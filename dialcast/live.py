"""The operator's commands: what is live on this host, and stopping it, over the application server's Unix socket."""

import json
import socket
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from protocols.printable import printable
from provisioning.commands import ConfigFile, DataDir, load, one_line_errors
from provisioning.config import OPERATOR_SOCKET
from provisioning.problems import complain

TIMEOUT = 15.0
"""Seconds to wait for the answer: stopping a broadcast with many viewers takes a while."""

live_app = typer.Typer(no_args_is_help=True, help="See and stop the broadcasts of the server on this host.")


class NoServerError(Exception):
    """Nobody answers at the socket; the message names it and the remedy."""


def ask(data_dir: Path, request: dict[str, str]) -> dict[str, Any]:
    """One command to the server of this data directory. Raises NoServerError."""
    path = data_dir / OPERATOR_SOCKET
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(TIMEOUT)
            door.connect(str(path))
            door.sendall(json.dumps(request).encode() + b"\n")
            with door.makefile("rb") as answers:
                answer: dict[str, Any] = json.loads(answers.readline())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise NoServerError(
            f"no server answers at {path} ({why}): is `dialcast up` running? "
            "Name its folder or its configuration: --data-dir FOLDER, or -c FILE (or DIALCAST_CONFIG=FILE)"
        ) from None
    return answer


def _command(config_file: Path | None, data_dir: Path | None, request: dict[str, str]) -> dict[str, Any]:
    """The answer; without a server, or when it refuses, the reason on stderr and exit status 1.

    A folder that is named is enough: the server can be asked whatever is wrong with its file.
    """
    with one_line_errors():
        folder = data_dir or load(config_file, None).data_path
    try:
        answer = ask(folder, request)
    except NoServerError as error:
        complain(str(error))
        raise typer.Exit(1) from None
    if not answer["ok"]:
        complain(answer["error"])
        raise typer.Exit(1)
    return answer


@live_app.command("list")
def list_live(
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for scripts.")] = False,
) -> None:
    """List who is live, since when, and who watches."""
    broadcasts = _command(config_file, data_dir, {"command": "list"})["broadcasts"]
    if as_json:
        typer.echo(json.dumps(broadcasts))
        return
    if not broadcasts:
        typer.echo("nobody is live")
        return
    table = Table("number", "state", "for", "viewers", "media", "forwarded", box=None, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = column.header != "viewers"
    table.add_column("server", overflow="fold")
    numbers = [row["number"] for row in broadcasts]
    for row in broadcasts:
        minutes, seconds = divmod(int(row["seconds"]), 60)
        viewers = row.get("viewers")  # another server's are known only there
        watching = "?" if viewers is None else f"{len(viewers)}  {printable(' '.join(viewers[:8]))}"
        forwarded = f"to {row['service'].partition('@')[0]}" if row.get("forwarded") else "no"
        name = row["channel"] if numbers.count(row["number"]) > 1 else row["number"]
        table.add_row(
            printable(name),
            row["state"],
            f"{minutes}:{seconds:02}",
            watching,
            "no media" if row.get("unheard") else " ".join(row["media"]),
            forwarded if viewers is not None else "?",
            printable(row["as_id"]),
        )
    Console(markup=False, highlight=False).print(table)


def reload(config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Have the server on this host read its configuration again; no call is dropped.

    Tells what changed, and what would need a restart. A file with a mistake changes nothing: status 1.
    """
    answer = _command(config_file, data_dir, {"command": "reload"})
    typer.echo(f"changed: {', '.join(answer['changed']) or 'nothing'}")
    if answer["restart"]:
        typer.echo(f"at the next restart only: {', '.join(answer['restart'])}")


def blocks(
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    lift: Annotated[str, typer.Option(metavar="ADDRESS", help="End the block of this address or account.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for scripts.")] = False,
) -> None:
    """List the addresses and accounts that are blocked, and why; or lift one block."""
    if lift:
        typer.echo(f"lifted {_command(config_file, data_dir, {'command': 'lift', 'who': lift})['who']}")
        return
    answer = _command(config_file, data_dir, {"command": "blocks"})
    if as_json:
        typer.echo(json.dumps(answer["blocks"]))
    elif not answer["blocks"]:
        typer.echo("nobody is blocked")
    else:
        table = Table("blocked", "why", "seconds left")
        for row in answer["blocks"]:
            table.add_row(row["who"], row["why"], str(round(row["seconds"])))
        Console(markup=False, highlight=False).print(table)


@live_app.command("stop", short_help="Stop a broadcast; everybody's call ends.")
def stop_live(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="The broadcaster's number.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What the broadcaster and the viewers are told.")] = "",
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Stop a broadcast: forwarding is withdrawn, everybody's call ends with the reason."""
    answer = _command(config_file, data_dir, {"command": "stop", "number": number, "reason": reason})
    typer.echo(f"stopped {answer['number']} ({answer['viewers']} viewers)")
