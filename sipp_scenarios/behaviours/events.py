"""Subscriptions and texts."""

from sipp_scenarios.behaviours.broadcasts import named
from sipp_scenarios.behaviours.catalogue import behaviour
from sipp_scenarios.world import World, one, require


@behaviour("flow", "RFC 4575, RFC 6665")
def conference_events(world: World) -> None:
    """The broadcaster's roster names who comes; the subscription ends with the broadcast."""
    broadcaster, viewer = world.accounts[:2]
    with (
        world.live(broadcaster) as live,
        world.sipp("subscribe_until_over", broadcaster, broadcaster.number, keys={"event": "conference"}) as roster,
    ):
        require("<conference-info" in roster.received("NOTIFY").text, "no conference-info")
        with world.talking("watch", viewer, broadcaster.number) as watching:
            roster.wait("viewer in the roster", 15, lambda: named(roster, viewer) or None)
            live.hang_up()
            watching.finished(15)
        roster.wait(
            "end", 10, lambda: any("noresource" in m.header("Subscription-State") for m in roster.messages()) or None
        )


def told(world: World, event: str, idle: str, live: str) -> None:
    """Somebody subscribes to `event` of a number, which goes live and ends: the documents say so."""
    broadcaster, watcher = world.accounts[:2]
    with world.sipp("subscribe", watcher, broadcaster.number, hold=120, keys={"event": event}) as lamp:
        require(idle in lamp.received("NOTIFY").text, f"{event} does not begin {idle}")
        with world.live(broadcaster):
            lamp.wait(live, 15, lambda: any(live in m.text for m in lamp.messages() if not m.sent) or None)
        lamp.wait(
            "end",
            15,
            lambda: idle in [m.text for m in lamp.messages() if m.start_line.startswith("NOTIFY")][-1] or None,
        )
        lamp.quiet(1.2)
        lamp.hang_up()
        last = [m for m in lamp.finished(15) if m.start_line.startswith("NOTIFY")][-1]
    require(last.header("Subscription-State").startswith("terminated"), "unsubscribing is not confirmed")


@behaviour("flow", "RFC 3856, RFC 3863")
def presence_events(world: World) -> None:
    """A buddy list shows closed, open while the number is live, and closed again."""
    told(world, "presence", "closed", "open")


@behaviour("flow", "RFC 4235")
def dialog_events(world: World) -> None:
    """A lamp key is lit (confirmed) while the number is live, and out (terminated) else."""
    told(world, "dialog", "terminated", "confirmed")


@behaviour("flow", "RFC 6665 section 4.2.1.1")
def unknown_event(world: World) -> None:
    """An event package nobody knows is 489, with those that are known."""
    refusal = one(world.play("subscribe_refused", world.accounts[0], "8888", event="weather"), "SIP/2.0 489")
    require("presence" in refusal.header("Allow-Events"), "no Allow-Events")


@behaviour("flow", "RFC 3428, docs/call-flows.md section 8")
def question_and_answer(world: World) -> None:
    """A viewer's text reaches the broadcaster's phone; the broadcaster's answer reaches the viewer in its call."""
    broadcaster, viewer = world.accounts[:2]
    with (
        world.phone("take_message", broadcaster) as phone,
        world.live(broadcaster),
        world.talking("watch", viewer, broadcaster.number) as watching,
    ):
        watching.received("SIP/2.0 200")
        watching.quiet(0.3)
        world.play("message", viewer, broadcaster.number, text="Where are you?")
        question = one(phone.finished(10), "MESSAGE")
        require("Where are you?" in question.text, "not the question")
        require(viewer.number in question.header("From"), "the question does not say who asks")
        world.play("message", broadcaster, broadcaster.number, text="By the river.")
        require("By the river." in watching.received("MESSAGE").text, "not the answer")
        watching.hang_up()
        watching.finished(15)
