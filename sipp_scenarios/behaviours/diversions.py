"""Call forwarding, and the codes that set it."""

from sipp_scenarios.behaviours.catalogue import behaviour
from sipp_scenarios.sipp import Account, Sipp
from sipp_scenarios.world import World, equal, one, require

CODES = {
    "21": "unconditional",
    "67": "busy",
    "61": "no reply",
    "62": "not reachable",
    "002": "all",
    "004": "conditional",
}
NO_REPLY = 5


def answered_by(
    world: World, caller: Account, dialled: Account, target: Account, cause: str, forwarder: Sipp | None
) -> None:
    """`caller` calls `dialled` and reaches `target`, and is told why by 181."""
    with world.phone("answer", target) as answering, world.talking("call", caller, dialled.number) as calling:
        told = calling.received("SIP/2.0 181", 15)
        require(f"cause={cause}" in told.text, f"History-Info does not say cause={cause}: {told.text}")
        answering.received("ACK", 15)
        calling.hang_up()
        calling.finished(15)
        answering.finished(15)
        if forwarder is not None:
            forwarder.finished(15)


@behaviour("flow", "TS 24.604 section 4.5.2.6.1 (CFU)")
def forwarded_always(world: World) -> None:
    """A number forwards every call: nothing rings there, the caller gets 181 with cause=302."""
    caller, served, target = world.accounts[:3]
    with world.forwarding(served, "21", target.number):
        answered_by(world, caller, served, target, "302", None)


@behaviour("flow", "TS 24.604 section 4.5.2.6.2 (CFB)")
def forwarded_when_busy(world: World) -> None:
    """The phone answers 486: the call goes on, with cause=486."""
    caller, served, target = world.accounts[:3]
    with world.forwarding(served, "67", target.number), world.phone("busy", served) as busy:
        answered_by(world, caller, served, target, "486", busy)


@behaviour("flow", "TS 24.604 section 4.5.2.6.3 (CFNR)")
def forwarded_without_reply(world: World) -> None:
    """Nobody picks up for the five seconds the user asked for: the phone is cancelled, the call goes on, cause=408."""
    caller, served, target = world.accounts[:3]
    world.dial(served, f"**61*{target.number}**{NO_REPLY}#")
    with world.phone("ring_until_cancelled", served) as ringing:
        answered_by(world, caller, served, target, "408", ringing)
    world.dial(served, "##61#")


@behaviour("flow", "TS 24.604 section 4.5.2.6.5 (CFNL)")
def forwarded_when_not_logged_in(world: World) -> None:
    """No phone is registered: the call goes on, with cause=404."""
    caller, served, target = world.accounts[:3]
    with world.forwarding(served, "62", target.number):
        answered_by(world, caller, served, target, "404", None)


@behaviour("flow", "TS 24.604 section 4.5.2.6.4 (CD)")
def deflected(world: World) -> None:
    """The phone itself sends the ringing call on by 302: cause=487."""
    caller, served, target = world.accounts[:3]
    with world.phone("deflect", served, deflect_to=target.number) as deflecting:
        answered_by(world, caller, served, target, "487", deflecting)


@behaviour("flow", "TS 22.030 section 6.5.2")
def codes(world: World) -> None:
    """All five procedures of all six services: registered, asked, deactivated, activated, erased; each says so."""
    caller, target = world.accounts[:2]
    for code in CODES:
        for procedure in (f"**{code}*{target.number}#", f"*#{code}#", f"#{code}#", f"*{code}#", f"##{code}#"):
            reason = world.dial(caller, procedure)
            require(reason.startswith("SIP;cause=200;text="), f"{procedure}: {reason}")


@behaviour("flow", "TS 22.030 section 6.5.3, RFC 3261 section 21.4.22")
def codes_refused(world: World) -> None:
    """A malformed code is 484, a forbidden target 403, nothing registered 404."""
    caller = world.accounts[0]
    for code, status in (("*21*1005", "484"), ("*21*00441234567#", "403"), ("*21#", "404")):
        world.play(f"refused_{status}", caller, code)


@behaviour("flow", "TS 24.604 section 4.5.2.6.0 (loops)")
def forwarded_in_a_circle(world: World) -> None:
    """Two numbers that forward to each other: 482, and not a storm."""
    caller, first, second = world.accounts[:3]
    with world.forwarding(first, "21", second.number), world.forwarding(second, "21", first.number):
        world.play("refused_482", caller, first.number)


@behaviour("flow", "RFC 3264, docs/call-flows.md section 9")
def code_confirmed_by_voice(world: World) -> str:
    """A phone that listens hears its code confirmed before the server hangs up."""
    caller = world.accounts[0]
    with world.call("code_heard", caller, "*#21#", 20) as call:
        call.answered()
        seen = call.finished(30)
        heard = len(call.media.received["audio"].packets)
    equal("Reason", one(seen, "BYE").header("Reason"), 'SIP;cause=200;text="No forwarding registered"')
    require(heard > 25, f"only {heard} packets of speech")
    return f"{heard / 50:.1f} s of speech"
