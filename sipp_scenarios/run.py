"""`python -m sipp_scenarios.run NAME --server HOST:PORT`: runs one behaviour; without arguments it lists them."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sipp_scenarios.behaviours import BEHAVIOURS, Options
from sipp_scenarios.sipp import Account, SippError

OTHERS = "1003,1004,1005,1006,1007,1008,1009"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when the behaviour went as written, 1 when not, 2 for wrong usage."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        for name, behaviour in BEHAVIOURS.items():
            print(f"{name:<14} {behaviour.explanation}")
        print("\npython -m sipp_scenarios.run NAME --server HOST:PORT   (--help for every option)")
        return 0
    options = _parser().parse_args(words)
    behaviour = BEHAVIOURS[options.name]
    given = {key: value for key in ("calls", "rate", "hold") if (value := getattr(options, key)) is not None}
    chosen = Options(
        server=options.server,
        account=_account(options.number, options.password),
        target=options.target or behaviour.target,
        peer=_account(options.peer, options.peer_password),
        others=tuple(_account(number, options.password) for number in options.others.split(",") if number),
        clip=options.clip,
        voice=options.voice,
        load=replace(behaviour.load, **given),
        transport=options.transport,
    )
    for path in (options.clip, options.voice):
        if path is not None and not path.is_file():
            print(f"there is no file {path}", file=sys.stderr)
            return 1
    try:
        for line in behaviour.run(chosen):
            print(line, flush=True)
    except SippError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _account(number: str, password: str | None) -> Account:
    """Sample subscribers' passwords follow from their numbers."""
    return Account(number, password or f"dialcast-{number}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sipp_scenarios.run", description="Runs one SIPp behaviour.")
    parser.add_argument("name", choices=list(BEHAVIOURS), metavar="NAME", help=", ".join(BEHAVIOURS))
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--number", default="1002", help="who calls (1002)")
    parser.add_argument("--password", help="its password (a sample subscriber's)")
    parser.add_argument("--target", help="the number or code that is dialled")
    parser.add_argument("--peer", default="1003", help="ordinary_call: who is called (1003)")
    parser.add_argument("--peer-password")
    parser.add_argument("--others", default=OTHERS, help=f"call_load: numbers that call in turn as well ({OTHERS})")
    parser.add_argument("--clip", type=Path, help="video file to show")
    parser.add_argument("--voice", type=Path, help="WAV file to say")
    parser.add_argument("--hold", type=float, help="seconds a call is held")
    parser.add_argument("--calls", type=int, help="load: how many calls")
    parser.add_argument("--rate", type=float, help="load: calls a second")
    parser.add_argument("--transport", choices=["udp", "tcp"], default="udp")
    return parser


if __name__ == "__main__":
    sys.exit(main())
