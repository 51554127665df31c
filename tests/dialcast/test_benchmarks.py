"""What the benchmarks make of their figures."""

import pytest
import typer

from bench.plot import drawn
from bench.soak import BLOCKS, HELD, MEMORY, REQUESTS, Sample, grown, kinds, verdict
from fuzz.__main__ import lasting, planned
from fuzz.__main__ import main as fuzzing
from sipp_scenarios.scenarios import SCENARIOS
from sipp_scenarios.sipp import Account

QUIET: Sample = {**dict.fromkeys(HELD, 5.0), MEMORY: 1e8, BLOCKS: 1e6, REQUESTS: 1000.0}


def test_a_soak_finds_each_thing_that_was_not_given_back() -> None:
    after = QUIET | {REQUESTS: 2000.0}
    assert grown(QUIET, after) == {}
    for name in HELD:
        assert name in grown(QUIET, after | {name: 30.0})


def test_a_soak_finds_what_grows_with_every_request_however_long_it_runs() -> None:
    """A leak of 1,200 bytes a request is within the bound at first, and beyond it after 100,000."""
    assert grown(QUIET, QUIET | {REQUESTS: 2000.0, MEMORY: 1e8 + 1_200 * 1000}) == {}
    assert MEMORY in grown(QUIET, QUIET | {REQUESTS: 101_000.0, MEMORY: 1e8 + 1_200 * 100_000})
    assert BLOCKS in grown(QUIET, QUIET | {REQUESTS: 101_000.0, BLOCKS: 1e6 + 4 * 100_000})


def test_every_phone_of_the_soak_has_its_scenario() -> None:
    accounts = tuple(Account(str(number), "secret") for number in range(3))
    assert {phones.scenario for phones in kinds(accounts)} <= SCENARIOS.keys()


def test_a_picture_leaves_out_rows_with_failures() -> None:
    row = {"server": "dialcast", "work": "register", "cpu_ms": 1.0, "counts": True}
    picture = drawn([row, row | {"server": "other & sons", "counts": False}], "here")
    assert "register, dialcast" in picture
    assert "sons" not in picture


def test_the_last_line_of_a_soak_says_whether_it_was_well() -> None:
    assert verdict({}, {}) == "nothing left behind, no call failed"
    assert verdict({"dialcast_threads": "at most 9"}, {}) == "left behind: dialcast_threads (at most 9)"
    assert verdict({}, {"watch": 2}) == "calls that failed: 2 watch"


def test_a_fuzzing_run_says_how_long_it_takes_and_what_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as ended:
        fuzzing(seconds=1, only=["sip-uri"], jobs=1, seed=1)
    assert ended.value.exit_code == 0
    first, line, *_ = capsys.readouterr().out.splitlines()
    assert first == "1 harness, 1 at a time: 1 s"
    assert line.startswith("[1/1] sip-uri: ") and line.endswith("findings: none")


def test_harnesses_in_c_begin_first_where_they_run_longer() -> None:
    names = ["sip-uri", "native-payloads", "native-commands", "native-datagrams"]
    lasts = planned(names, 2, 20)
    assert [*lasts.items()] == [*((name, 20) for name in names[1:]), ("sip-uri", 2)]
    assert lasting([*lasts.values()], 2) == "4 harnesses, 2 at a time: 40 s"
    assert [*planned(names, 3, 3).items()] == [(name, 3) for name in names]
