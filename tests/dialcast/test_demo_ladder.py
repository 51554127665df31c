"""The demonstration's ladder: all fourteen steps in order pass, and anything missing or out of order fails."""

from dataclasses import replace

import pytest

from dialcast.demo.ladder import AS, FORWARDED, RELAY, WITHDRAWN, Arrow, check, endings

LIVE = [
    ("1001", AS, "INVITE 8888"),
    (AS, RELAY, "OpenGroup"),
    (RELAY, AS, "OpenGroup ok"),
    (AS, "1001", "183 Session Progress (INVITE)"),
    ("1001", RELAY, "STUN Binding Request"),
    (RELAY, AS, "LegJoined"),
    (AS, "1001", "200 OK (INVITE)"),
    ("1001", AS, "INVITE *21*8888#"),
    (AS, AS, FORWARDED),
    ("1001", RELAY, "RTP AMR + H.264"),
]
WATCHING = [
    ("1002", AS, "INVITE 1001"),
    (AS, "1002", "181 Call Is Being Forwarded (INVITE)"),
    (AS, RELAY, "AddViewer"),
    (RELAY, AS, "AddViewer ok"),
    (AS, "1002", "200 OK (INVITE)"),
    ("1002", RELAY, "STUN Binding Request"),
    (RELAY, "1002", "RTP AMR + H.264"),
]
ENDING = [
    ("1001", AS, "BYE", "hangs up"),
    (AS, AS, WITHDRAWN, ""),
    (AS, RELAY, "CloseGroup", ""),
    (AS, "1002", "BYE", 'Q.850;cause=16;text="Broadcast ended"'),
]
CARRIED = {
    "INVITE": frozenset({"sdp"}),
    "183 Se": frozenset({"sdp", "reliable", "isfocus"}),
    "181 Ca": frozenset({"history"}),
    "200 OK": frozenset({"sdp", "isfocus"}),
}


def arrows(lines: list[tuple[str, ...]]) -> list[Arrow]:
    return [
        Arrow(float(at), line[0], line[1], line[2], "".join(line[3:]), CARRIED.get(line[2][:6], frozenset()))
        for at, line in enumerate(lines)
    ]


def test_all_fourteen_steps_in_order_are_found() -> None:
    ladder = check(arrows([*LIVE, *WATCHING]), "8888", "1001", ["1002"])
    assert not ladder.problems
    assert {step.number for step in ladder.steps} == set(range(1, 15))


@pytest.mark.parametrize("missing", range(len(LIVE) + len(WATCHING)))
def test_a_missing_step_is_a_problem(missing: int) -> None:
    lines = [line for index, line in enumerate([*LIVE, *WATCHING]) if index != missing]
    assert check(arrows(lines), "8888", "1001", ["1002"]).problems


@pytest.mark.parametrize("early", range(1, len(LIVE)))
def test_a_step_before_its_time_is_a_problem(early: int) -> None:
    lines = [*LIVE, *WATCHING]
    lines[early - 1], lines[early] = lines[early], lines[early - 1]
    assert check(arrows(lines), "8888", "1001", ["1002"]).problems


def test_an_end_in_order_with_its_reason_is_right() -> None:
    assert not endings(arrows(ENDING), "1001", ["1002"])


@pytest.mark.parametrize("missing", range(len(ENDING)))
def test_an_end_that_leaves_something_out_is_a_problem(missing: int) -> None:
    lines = [line for index, line in enumerate(ENDING) if index != missing]
    assert endings(arrows(lines), "1001", ["1002"])


def test_viewers_told_before_the_media_stopped_are_a_problem() -> None:
    hung_up, withdrawn, closed, told = ENDING
    assert endings(arrows([hung_up, withdrawn, told, closed]), "1001", ["1002"])


def test_a_viewer_who_is_not_told_why_is_a_problem() -> None:
    assert endings(arrows([*ENDING[:3], (AS, "1002", "BYE", "hangs up")]), "1001", ["1002"])


@pytest.mark.parametrize("trait", ["sdp", "reliable", "isfocus"])
def test_a_183_without_the_groups_information_is_a_problem(trait: str) -> None:
    flow = [
        replace(arrow, traits=arrow.traits - {trait}) if arrow.message.startswith("183") else arrow
        for arrow in arrows([*LIVE, *WATCHING])
    ]
    assert check(flow, "8888", "1001", ["1002"]).problems == [
        "step 4: no 183 from AS to 1001 in its place, or without what it must carry"
    ]
