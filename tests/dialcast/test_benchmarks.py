"""What the benchmarks make of their figures."""

from bench.plot import drawn
from bench.soak import BLOCKS, HELD, MEMORY, REQUESTS, Sample, grown, kinds
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
