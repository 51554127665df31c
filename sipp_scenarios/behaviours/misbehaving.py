"""Phones that do not keep to the rules, in calls of their own. After each, others are served as before."""

from sipp_scenarios.behaviours.catalogue import behaviour
from sipp_scenarios.wire import Doubler
from sipp_scenarios.world import SERVICE, World, equal, one, require

GIVEN_UP = 50.0
"""Seconds in which the server has surely given up: 64*T1, and what a busy machine adds."""


@behaviour("misbehaviour", "RFC 3261 section 9.2")
def drops_the_200_then_cancels(world: World) -> None:
    """Overlooks the 200 and cancels: the CANCEL is answered and changes nothing, the repeated 200 makes the call."""
    seen = world.play("drop_200_then_cancel", world.accounts[0], "*#21#")
    one(seen, "SIP/2.0 200", "CANCEL")
    require("cause=200" in one(seen, "BYE").header("Reason"), "the call did not go on")


@behaviour("misbehaviour", "RFC 3261 section 13.3.1.4", slow=True)
def never_acknowledges(world: World) -> str:
    """Never sends the ACK: the 200 is repeated, after 64*T1 the server hangs up."""
    seen = world.play("never_ack", world.accounts[0], "*#21#", GIVEN_UP)
    answers = [m for m in seen if m.start_line.startswith("SIP/2.0 200") and "INVITE" in m.header("CSeq")]
    waited = one(seen, "BYE").at - answers[0].at
    require(8 < len(answers) < 14, f"{len(answers)} times 200")
    require(25 < waited < 40, f"BYE after {waited:.0f} s")
    return f"{len(answers)} times 200, BYE after {waited:.0f} s"


@behaviour("misbehaviour", "RFC 3262 section 3", slow=True)
def never_pracks(world: World) -> str:
    """Requires 100rel and never sends PRACK: the 181 is repeated, after 64*T1 the call is refused (504)."""
    broadcaster, viewer = world.accounts[:2]
    with world.live(broadcaster):
        seen = world.play("never_prack", viewer, broadcaster.number, GIVEN_UP)
    repeats = len([m for m in seen if m.start_line.startswith("SIP/2.0 181")])
    require(5 < repeats < 14, f"{repeats} times 181")
    return f"{repeats} times 181"


@behaviour("misbehaviour", "RFC 3262 section 3")
def pracks_out_of_order(world: World) -> None:
    """A PRACK for an answer that never was is 481; the right one is taken."""
    broadcaster, viewer = world.accounts[:2]
    with world.live(broadcaster), world.talking("prack_out_of_order", viewer, broadcaster.number) as watching:
        watching.received("SIP/2.0 200", 10)
        watching.quiet(0.7)
        watching.hang_up()
        one(watching.finished(15), "SIP/2.0 481", "PRACK")


@behaviour("misbehaviour", "RFC 3261 sections 9.1, 16.7 step 5")
def answers_after_the_cancel(world: World) -> None:
    """The phone answers though it was cancelled: its 200 is acknowledged and the call ended, nobody is left talking."""
    caller, callee = world.accounts[:2]
    with (
        world.phone("answer_after_cancel", callee) as answering,
        world.sipp("cancel_and_be_answered", caller, callee.number) as calling,
    ):
        answering.finished(20)
        calling.finished(20)


@behaviour("misbehaviour", "RFC 3261 section 17.2")
def sends_everything_twice(world: World) -> None:
    """From its credentials on every request comes twice: one call, one broadcast, each answer the same."""
    with Doubler(world.host, world.server) as doubler:
        through = f"{doubler.host}:{doubler.port}"
        with world.sipp("go_live", world.accounts[0], SERVICE, hold=1, through=through) as phone:
            seen = phone.finished(15)
    require(doubler.doubled >= 3, f"only {doubler.doubled} requests were doubled")
    tags = {m.header("To") for m in seen if m.start_line.startswith("SIP/2.0 200") and "INVITE" in m.header("CSeq")}
    equal("answered calls", len(tags), 1)


@behaviour("misbehaviour", "RFC 3261 section 15")
def hangs_up_before_the_ack(world: World) -> None:
    """BYE instead of ACK: it is answered, and the 200 is repeated no more."""
    world.play("bye_before_ack", world.accounts[0], SERVICE)


@behaviour("misbehaviour", "RFC 3261 section 9.2")
def cancels_nothing(world: World) -> None:
    """CANCEL for a call that never was: 481."""
    world.play("cancel_nothing", world.accounts[0], world.accounts[1].number)
