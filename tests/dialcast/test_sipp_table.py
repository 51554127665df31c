"""The table of the SIPp behaviours fits where it is printed."""

import pytest
from rich.console import Console

from sipp_scenarios.__main__ import _print_table
from sipp_scenarios.behaviours import CATALOGUE
from sipp_scenarios.suite import Result


@pytest.mark.parametrize("width", [80, 200])
def test_every_behaviour_has_its_result_in_the_line_with_its_name(
    capsys: pytest.CaptureFixture[str], width: int
) -> None:
    remark = "keyframe after 0.23 s, and more words here that go on and on"
    results = [Result(each.name, each.kind, each.shows, each.by, "passed", 12.3, remark) for each in CATALOGUE.values()]
    _print_table(results, Console(width=width, soft_wrap=True))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    for name in CATALOGUE:
        assert any(f" {name} " in f" {line}" and "passed" in line for line in lines), name
