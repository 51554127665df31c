"""Going live and watching, by stock phones."""

import time

from sipp_scenarios.behaviours.catalogue import behaviour
from sipp_scenarios.own_server import PRIVATE, WITH_PIN
from sipp_scenarios.sipp import Account, Sipp, Traced
from sipp_scenarios.world import SERVICE, World, equal, one, require, until

ENDED = 'Q.850;cause=16;text="Broadcast ended"'


def watched(world: World, scenario: str, service: str = SERVICE) -> list[Traced]:
    """Somebody goes live, a viewer plays `scenario` until the broadcaster hangs up; what the viewer saw."""
    broadcaster, viewer = world.accounts[:2]
    with world.live(broadcaster, service) as live, world.talking(scenario, viewer, broadcaster.number) as watching:
        ready(watching)
        live.hang_up()
        seen = watching.finished(20)
    equal("Reason of the BYE", one(seen, "BYE").header("Reason"), ENDED)
    return seen


def ready(phone: Sipp) -> None:
    """Waits until a phone has said and asked all its scenario has, and talks: nothing was sent for half a second."""
    phone.received("SIP/2.0 200", 15)
    phone.quiet(0.7)


@behaviour("flow", "docs/call-flows.md section 7")
def go_live(world: World) -> str:
    """A stock phone dials the service number: 200 with SDP at once; --clip and --voice are sent for --hold seconds."""
    with world.call("go_live", world.accounts[0], SERVICE, world.wishes.hold or 1.0) as call:
        answer = call.answered()
        call.finished((world.wishes.hold or 1.0) + 30)
    require("isfocus" in answer.header("Contact"), "the 200 does not name the conference")
    equal("media accepted", sorted(call.answer), ["audio", "video"])
    return ", ".join(f"{stream.encoding} to {stream.host}:{stream.port}" for stream in call.answer.values())


@behaviour("flow", "TS 24.604, RFC 4579")
def watch(world: World) -> None:
    """A call to a broadcaster's number: 181 and 200 in one dialog, History-Info, and BYE when the broadcast ends."""
    seen = watched(world, "watch")
    diverted, answer = one(seen, "SIP/2.0 181"), one(seen, "SIP/2.0 200", "INVITE")
    equal("To of 181 and 200", diverted.header("To"), answer.header("To"))
    require("cause=302" in diverted.text, "History-Info does not say cause=302")
    require("isfocus" in answer.header("Contact"), "the 200 does not name the conference")


@behaviour("flow", "RFC 3262")
def watch_reliably(world: World) -> None:
    """Requires 100rel: the 181 is reliable, and is acknowledged by PRACK."""
    seen = watched(world, "watch_reliably")
    equal("Require of the 181", one(seen, "SIP/2.0 181").header("Require"), "100rel")


@behaviour("flow", "RFC 3264 section 8.4, RFC 3261 section 14")
def hold_and_resume(world: World) -> None:
    """A viewer holds the call by re-INVITE, and resumes: inactive is answered inactive, recvonly sendonly."""
    seen = watched(world, "watch_on_hold")
    answers = [m.text for m in seen if m.start_line.startswith("SIP/2.0 200") and "INVITE" in m.header("CSeq")]
    require("a=inactive" in answers[1], "hold is not answered inactive")
    require("a=sendonly" in answers[2], "resuming is not answered sendonly")


@behaviour("flow", "RFC 3261 section 13.2.1, RFC 3264 section 5")
def invite_without_offer(world: World) -> None:
    """A viewer offers nothing: the server's offer is in the 200, the answer in the ACK."""
    answer = one(watched(world, "watch_without_offer"), "SIP/2.0 200", "INVITE")
    require("m=video" in answer.text, "no picture offered")


@behaviour("flow", "RFC 3311, RFC 4028 section 7.4")
def update_refreshes_the_session(world: World) -> None:
    """An UPDATE refreshes the session timer."""
    seen = watched(world, "watch_with_updates")
    refreshed = one(seen, "SIP/2.0 200", "UPDATE").header("Session-Expires")
    require(refreshed.startswith("1800"), f"Session-Expires of the UPDATE: {refreshed!r}")


@behaviour("flow", "RFC 4028 section 6")
def session_interval_too_small(world: World) -> None:
    """Sessions of 20 s are refused by 422 with Min-SE; with that the call is answered."""
    seen = watched(world, "watch_with_short_session")
    equal("Min-SE", one(seen, "SIP/2.0 422").header("Min-SE"), "90")
    require(one(seen, "SIP/2.0 200", "INVITE").header("Session-Expires").startswith("90"), "no session timer")


@behaviour("flow", "RFC 5168")
def picture_fast_update(world: World) -> None:
    """A viewer asks for a full picture by INFO: it is agreed to, and the broadcaster's phone is asked for one."""
    broadcaster, viewer = world.accounts[:2]

    def told() -> int:
        """How often the phone was asked by INFO, as one is that was not heard to speak RTCP."""
        return sum(message.start_line.startswith("INFO") for message in live.sipp.messages())

    with world.call("go_live", broadcaster, SERVICE) as live:
        live.media.keyframes = "when asked"  # none comes by itself that would do
        live.answered()
        world.dial(broadcaster, f"*21*{SERVICE}#")
        with world.call("watch_and_ask_for_picture", viewer, broadcaster.number) as watching:
            watching.answered()
            packets = watching.media.received["video"].packets
            until("the viewer's picture begins, with a keyframe, which it may have taken asking", lambda: bool(packets))
            before, at = told(), time.monotonic()
            watching.sipp.tell("ASK")
            until("the broadcaster is asked for a picture", lambda: live.media.picture_wanted(at) or told() > before)
            ready(watching.sipp)
            watching.sipp.hang_up()
            watching.finished(15)
        live.sipp.hang_up()
        live.finished(15)


@behaviour("flow", "docs/operations.md, private broadcasts")
def private_broadcast(world: World) -> None:
    """A viewer who is not on the list is refused (403)."""
    world.needs_own("a service number for private broadcasts")
    broadcaster, viewer = world.accounts[:2]
    with world.live(broadcaster, PRIVATE):
        world.play("refused_403", viewer, broadcaster.number)


@behaviour("flow", "docs/call-flows.md section 9")
def pin_by_keys(world: World) -> None:
    """A viewer is asked for a PIN, presses a wrong one, then the right one, and takes part."""
    world.needs_own("a service number with a PIN")
    broadcaster, viewer = world.accounts[:2]
    with (
        world.live(broadcaster, WITH_PIN) as live,
        world.sipp("subscribe_until_over", broadcaster, broadcaster.number, keys={"event": "conference"}) as roster,
    ):
        roster.received("NOTIFY")
        with world.call("watch_with_pin", viewer, broadcaster.number) as watching:
            watching.answered()
            roster.wait("viewer in the roster", 20, lambda: named(roster, viewer) or None)
            watching.sipp.quiet(0.3)
            live.hang_up()
            equal("Reason", one(watching.finished(20), "BYE").header("Reason"), ENDED)
        roster.wait("end of the subscription", 10, lambda: "terminated" in roster.messages()[-2].text or None)


@behaviour("flow", "docs/call-flows.md section 9")
def wrong_pins(world: World) -> None:
    """After the third wrong PIN the server hangs up."""
    world.needs_own("a service number with a PIN")
    broadcaster, viewer = world.accounts[:2]
    with world.live(broadcaster, WITH_PIN), world.call("watch_with_wrong_pins", viewer, broadcaster.number) as watching:
        watching.answered()
        seen = watching.finished(40)
    require("cause=403" in one(seen, "BYE").header("Reason"), one(seen, "BYE").header("Reason"))


@behaviour("flow", "docs/operations.md, second_attempt")
def second_attempt(world: World) -> None:
    """A number that is live dials the service number again: 486, and the broadcast goes on."""
    broadcaster = world.accounts[0]
    with world.live(broadcaster) as live:
        world.play("refused_486", broadcaster, SERVICE)
        require(not any(m.start_line.startswith("BYE") for m in live.messages()), "the broadcast was ended")


def named(roster: Sipp, account: Account) -> bool:
    """True once a NOTIFY names the account."""
    return any(
        m.start_line.startswith("NOTIFY") and f'entity="sip:{account.number}@' in m.text for m in roster.messages()
    )
