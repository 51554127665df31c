"""Where the `dialcast` command begins. It loads nothing before Ctrl-C is in hand; `command_line` has the commands."""

from dialcast.interrupts import INTERRUPTED, interruptible, was_interrupted


def main() -> None:
    """Entry point of the `dialcast` command."""
    with interruptible():
        from dialcast.command_line import app

    try:
        app()
    except (SystemExit, KeyboardInterrupt) as ended:
        if was_interrupted(ended):
            raise SystemExit(INTERRUPTED) from None
        raise


if __name__ == "__main__":
    main()
