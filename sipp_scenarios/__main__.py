"""`python -m sipp_scenarios`: plays the behaviours against a server, and prints a table. `--help` tells the rest."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sipp_scenarios.behaviours import CATALOGUE
from sipp_scenarios.own_server import OwnServer, Target, sample_accounts
from sipp_scenarios.scenarios import SCENARIOS
from sipp_scenarios.sipp import Load, SippError, local_host
from sipp_scenarios.suite import Result, play, written
from sipp_scenarios.wire import answers
from sipp_scenarios.world import Wishes

SHORT_LOAD = Load(calls=100, rate=20, at_once=200, hold=0.2)
AT_ONCE = 5
WIDE = 160
"""Columns that hold everything a result has."""
STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}
DESCRIPTION = """\
Plays behaviours of telephones (SIPp, from the Debian package sip-tester) against a dialcast server: flows as they
should be, phones that misbehave, and a little load. Prints how each went, and a table at the end.

Without --server it starts a server of its own on free loopback ports, with subscribers and service numbers for
everything that is played, and looks afterwards whether that server holds anything it did not hold before."""
EPILOG = """\
examples:
  python -m sipp_scenarios                                      everything, about a minute and a half
  python -m sipp_scenarios --list                               what there is
  python -m sipp_scenarios --only watch hold_and_resume         these two
  python -m sipp_scenarios --only load --calls 2000 --rate 80   all of one kind: flow, misbehaviour or load
  python -m sipp_scenarios --server 127.0.0.1:5060              against the server of `dialcast up`, accounts 1001-1009
  python -m sipp_scenarios --server 127.0.0.1:5060 --only go_live --hold 30 --clip film.mp4 --voice story.wav
  python -m sipp_scenarios --write-xml /tmp/scenarios           each phone as a file for `sipp -sf`

exit status: 0 all went as it should (or was skipped), 1 something did not, 2 wrong usage or no server"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when all went as it should, 1 when not, 2 for wrong usage or when there is no server."""
    parser = _parser()
    options = parser.parse_args(arguments)
    out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    if options.list:
        for entry in CATALOGUE.values():
            out.print(f"{entry.name:<30} {entry.kind:<13} {escape(entry.shows)}")
        return 0
    if options.write_xml is not None:
        options.write_xml.mkdir(parents=True, exist_ok=True)
        for name, scenario in SCENARIOS.items():
            (options.write_xml / f"{name}.xml").write_text(scenario.xml())
        return 0
    names = _chosen(options.only, parser)
    for path in (options.clip, options.voice):
        if path is not None and not path.is_file():
            parser.error(f"there is no file {path}")
    given = {key: value for key in ("calls", "rate", "hold") if (value := getattr(options, key)) is not None}
    wishes = Wishes(options.clip, options.voice, options.hold, replace(SHORT_LOAD, **given))
    done: list[Result] = []

    def report(result: Result) -> None:
        done.append(result)
        of = f"[{len(done)}/{len(names)}]" if len(done) <= len(names) else ""
        style = STYLES[result.outcome]
        out.print(f"[{style}]{result.outcome:<7}[/] {result.seconds:5.1f} s  {result.name} {escape(of)}")
        if result.outcome == "failed":
            out.print(escape("\n".join(f"    {line}" for line in result.remark.splitlines())))

    try:
        with ExitStack() as stack:
            if options.server is None:
                out.print("starting a server ...")
                target = stack.enter_context(OwnServer())
            else:
                target = Target(options.server, "", sample_accounts(options.numbers, options.password))
                if not answers(options.server, local_host(options.server)):
                    raise SippError(f"nobody answers OPTIONS at {options.server} over UDP")
            results = play(names, target, wishes, options.at_once, report)
    except (SippError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    _print_table(results, out)
    if options.json is not None:
        written(results, options.json)
    return int(any(result.outcome == "failed" for result in results))


def _chosen(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Names of behaviours, from names and kinds; all when none is given."""
    kinds = {entry.kind for entry in CATALOGUE.values()}
    wrong = [word for word in words if word not in CATALOGUE and word not in kinds]
    if wrong:
        parser.error(f"there is no {', '.join(wrong)}; --list tells what there is")
    return [entry.name for entry in CATALOGUE.values() if not words or entry.name in words or entry.kind in words]


def _print_table(results: Sequence[Result], out: Console) -> None:
    """What each behaviour shows, and where that is written, only where a line is wide enough; --list tells it too."""
    wide = out.width >= WIDE
    about = ("what it shows", "by") if wide else ()
    table = Table(
        "behaviour", *about, "result", "seconds", "remark", title="SIPp behaviours", box=HEAVY_HEAD if wide else None
    )
    table.columns[0].no_wrap = table.columns[-3].no_wrap = True
    for result in results:
        remark = result.remark.strip().splitlines()[0] if result.remark.strip() else ""
        words = [result.name, *((result.shows, result.by) if wide else ())]
        outcome = f"[{STYLES[result.outcome]}]{result.outcome}[/]"
        table.add_row(*map(escape, words), outcome, f"{result.seconds:.1f}", escape(remark))
    out.print(table)
    counts = {kind: sum(result.outcome == kind for result in results) for kind in STYLES}
    out.print(", ".join(f"{number} {kind}" for kind, number in counts.items()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sipp_scenarios",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="say what there is, and play nothing")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="behaviours, or kinds of them")
    parser.add_argument("--server", metavar="HOST:PORT", help="SIP over UDP of a server that runs already")
    parser.add_argument("--numbers", default="1001-1009", help="with --server: accounts to use (1001-1009)")
    parser.add_argument("--password", help="with --server: their password (of sample subscribers: dialcast-NUMBER)")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"how many are played at once at most ({AT_ONCE})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--calls", type=int, help=f"load: how many registrations or calls ({SHORT_LOAD.calls})")
    parser.add_argument("--rate", type=float, help=f"load: how many a second ({SHORT_LOAD.rate:g})")
    parser.add_argument("--hold", type=float, help=f"seconds calls are held: load ({SHORT_LOAD.hold:g}), go_live (1)")
    parser.add_argument("--clip", type=Path, help="go_live: video file to show (whatever FFmpeg reads)")
    parser.add_argument("--voice", type=Path, help="go_live: sound file to say")
    parser.add_argument(
        "--write-xml", type=Path, metavar="DIR", help="write the scenarios as SIPp files, and play nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
