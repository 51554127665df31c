"""`python -m fuzz.native lint`: the C under the compiler's warnings. `... threads`: the threaded engine under load.

Fuzzing is `python -m fuzz --only native-commands` and so on, with the others.
"""

import subprocess
import sys
from typing import Annotated, Literal

import typer

from fuzz.native import build

app = typer.Typer(add_completion=False, help="Checks of the engine in C.")


@app.command()
def lint() -> None:
    """Compile every file with -Wall -Wextra -Werror, and keep nothing of it."""
    try:
        build.lint()
    except build.NoCompiler as error:
        print(f"no look at the engine in C: {error}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        raise typer.Exit(1) from error


@app.command()
def threads(
    seconds: Annotated[int, typer.Option(min=1, help="How long packets flow.")] = 10,
    sanitizer: Annotated[Literal["thread", "address", "none"], typer.Option(help="What gcc watches for.")] = "thread",
) -> None:
    """Drive the engine's thread from several others while packets flow. Exit status 1 on a race."""
    program = build.threads("" if sanitizer == "none" else sanitizer)
    raise typer.Exit(int(subprocess.run([program, str(seconds)], check=False).returncode != 0))


if __name__ == "__main__":
    app()
