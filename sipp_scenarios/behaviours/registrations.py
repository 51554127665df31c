"""Registrations."""

from sipp_scenarios.behaviours.catalogue import behaviour
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Traced
from sipp_scenarios.world import World, equal, one, require


def taken(seen: list[Traced]) -> list[Traced]:
    """The 200s to REGISTER."""
    return [message for message in seen if message.start_line == "SIP/2.0 200 OK" and not message.sent]


@behaviour("flow", "RFC 3261 section 22.4, RFC 8760")
def register(world: World) -> None:
    """Registers over UDP with one MD5 challenge, and withdraws."""
    port = free_ports()
    with world.sipp("register", world.accounts[0], local_port=port, keys={"expires": "600"}) as phone:
        seen = phone.finished(15)
    challenge = one(seen, "SIP/2.0 401")
    equal("challenges", challenge.text.count("WWW-Authenticate"), 1)
    require("MD5" in challenge.header("WWW-Authenticate"), "the challenge is not MD5")
    require("expires=600" in taken(seen)[0].header("Contact"), "not registered for 600 s")
    with world.sipp("register", world.accounts[0], local_port=port, keys={"expires": "0"}) as phone:
        equal("Contact after Expires 0", taken(phone.finished(15))[0].header("Contact"), "")


@behaviour("flow", "RFC 3261 section 18.2.2")
def register_over_tcp(world: World) -> None:
    """Registers over TCP; the answer comes over the same connection."""
    if not world.target.tcp:
        world.needs_own("the address of TCP")
    port = free_ports()
    for expires in ("600", "0"):
        with world.sipp(
            "register", world.accounts[0], transport="tcp", local_port=port, keys={"expires": expires}
        ) as phone:
            equal("answers", len(taken(phone.finished(15))), 1)


@behaviour("flow", "RFC 3261 section 10.2.4")
def register_and_refresh(world: World) -> None:
    """Refreshes a registration under the same Call-ID for longer: still one contact, for the new time."""
    first, refreshed, withdrawn = taken(world.play("register_and_refresh", world.accounts[0]))
    require("expires=600" in first.text, "not registered for 600 s")
    equal("contacts", refreshed.text.count("Contact:"), 1)
    require("expires=1200" in refreshed.text, "not refreshed for 1200 s")
    equal("Contact after withdrawal", withdrawn.header("Contact"), "")


@behaviour("flow", "RFC 3261 section 10.2.2")
def register_several(world: World) -> None:
    """Registers two contacts, with their q, and withdraws both by Contact: *."""
    both, none = taken(world.play("register_several", world.accounts[0]))
    equal("contacts", both.text.count("Contact:"), 2)
    require("q=0.5" in both.text, "q is not kept")
    equal("Contact after *", none.header("Contact"), "")


@behaviour("flow", "RFC 3261 section 10.3 step 7")
def register_too_briefly(world: World) -> None:
    """Wants five seconds, is told the shortest time granted (423, Min-Expires)."""
    seen = world.play("register_briefly", world.accounts[0])
    equal("Min-Expires", one(seen, "SIP/2.0 423").header("Min-Expires"), "60")


@behaviour("flow", "RFC 3327 section 5.3")
def register_with_path(world: World) -> None:
    """A Path is stored and shown in the 200; one that leads to somebody else is refused (403)."""
    seen = world.play("register_with_path", world.accounts[0])
    require("sip:edge@" in taken(seen)[0].header("Path"), "the 200 does not show the Path")
    world.play("register_with_foreign_path", world.accounts[0])


@behaviour("flow", "RFC 5626 section 6")
def register_outbound(world: World) -> None:
    """Registers a flow by instance and reg-id: outbound is required, keep-alives are asked for."""
    granted = taken(world.play("register_outbound", world.accounts[0]))[0]
    equal("Require", granted.header("Require"), "outbound")
    require(granted.header("Flow-Timer"), "no Flow-Timer")
    require("reg-id=1" in granted.header("Contact"), "the contact has lost its reg-id")
