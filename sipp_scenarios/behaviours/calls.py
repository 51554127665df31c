"""Calls between phones."""

from sipp_scenarios.behaviours.catalogue import behaviour
from sipp_scenarios.world import World, equal, one, require


@behaviour("flow", "RFC 3261 section 11")
def options(world: World) -> None:
    """OPTIONS are answered without credentials and name methods and extensions; an unknown Require gets 420."""
    answer = one(world.play("options", world.accounts[0]), "SIP/2.0 200")
    for name, wanted in (("Allow", "PRACK"), ("Accept", "application/sdp"), ("Supported", "timer")):
        require(wanted in answer.header(name), f"{name} lacks {wanted}: {answer.header(name)!r}")
    refusal = one(world.play("options_refused", world.accounts[0]), "SIP/2.0 420")
    equal("Unsupported", refusal.header("Unsupported"), "teleportation")


@behaviour("flow", "RFC 3261 section 16")
def ordinary_call(world: World) -> None:
    """A number that is not live rings its phone; BYE and ACK run through the server, which stays in the path."""
    caller, callee = world.accounts[:2]
    with world.phone("answer", callee) as answering:
        with world.talking("call", caller, callee.number) as calling:
            calling.received("SIP/2.0 180")
            ringing = answering.received("INVITE")
            require("Record-Route" in ringing.text, "no Record-Route")
            require("Authorization" not in ringing.text, "the caller's credentials were passed on")
            answering.received("ACK")
            calling.hang_up()
            calling.finished(15)
        answering.finished(15)


@behaviour("flow", "RFC 3261 section 16.7")
def forked_call(world: World) -> None:
    """Both phones of a number ring; one answers, the other is cancelled and says 487."""
    caller, callee = world.accounts[:2]
    with world.phone("ring_until_cancelled", callee) as other, world.phone("answer", callee) as answering:
        with world.talking("call", caller, callee.number) as calling:
            answering.received("ACK")
            other.finished(15)
            calling.hang_up()
            calling.finished(15)
        answering.finished(15)


@behaviour("flow", "RFC 3261 section 9")
def cancel_while_ringing(world: World) -> None:
    """The caller hangs up while it rings: the phone gets CANCEL, the caller 487."""
    caller, callee = world.accounts[:2]
    with world.phone("ring_until_cancelled", callee) as ringing:
        world.play("cancel", caller, callee.number)
        ringing.finished(15)


@behaviour("flow", "RFC 3261 sections 8.2, 21.4")
def refusals(world: World) -> None:
    """What cannot be is refused with its own status: no such number, nobody there, unknown extension or body."""
    caller, callee = world.accounts[:2]
    world.play("refused_404", caller, "5550000")
    world.play("refused_480", caller, callee.number)
    refusal = one(world.play("refused_420", caller, "8888"), "SIP/2.0 420")
    equal("Unsupported", refusal.header("Unsupported"), "teleportation")
    require(one(world.play("refused_415", caller, "8888"), "SIP/2.0 415").header("Accept"), "415 without Accept")


@behaviour("flow", "RFC 3261 section 14.1")
def reinvite_glare(world: World) -> None:
    """Two phones re-INVITE each other at once: both 491 pass the server, and the call can still be ended."""
    caller, callee = world.accounts[:2]
    with world.phone("glare_callee", callee) as answering:
        world.play("glare_caller", caller, callee.number)
        answering.finished(15)
