"""The call flow as it happened: the events of all processes as arrows in the order of their times, meaning attached.

The fourteen steps of a broadcast are found among the arrows and checked: each must be there, in order, for the
broadcaster (1-9) and for every viewer (10-14).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

AS, RELAY = "AS", "relay"
FORWARDED, WITHDRAWN = "forwarding active", "forwarding withdrawn"
Event = dict[str, Any]
Wanted = tuple[int, str, str, str] | tuple[int, str, str, str, set[str]]
"""A step's arrow: its number, from, to, how the message begins, what it must carry."""

_CONTROL = {
    "OpenGroup": ("opens the group, reserves the broadcaster's leg", "group id, address, ports, join credentials"),
    "ReplaceSource": ("the broadcaster is back in a new call", "a new leg for the same group"),
    "AddViewer": ("adds the viewer to the broadcaster's group", "viewer added: address, ports, credentials"),
    "UpdateLeg": ("the leg's media changed", "changed"),
    "RemoveLeg": ("the viewer's call is over", "leg removed"),
    "OpenAnnouncement": ("a leg that is spoken to", "address, ports"),
    "PlayPrompt": ("speaks recorded prompts", "they are in the queue"),
    "StopPrompt": ("silences the prompt: a key was pressed", "silent"),
    "CloseGroup": ("stops the media, forgets the group", "group closed"),
}
_REPORTS = {
    "LegJoined": "joined and connected",
    "LegLost": "nothing heard from this leg",
    "PromptEnded": "spoken, or silenced",
    "Digit": "a key was pressed",
}
_RESPONSES = {
    ("REGISTER", 200): "registered",
    ("INVITE", 180): "the phone rings",
    ("INVITE", 181): "forwarded to the service number; History-Info says by whom",
    ("INVITE", 183): "reliable: the group's address, ports and join credentials; isfocus",
    ("PRACK", 200): "",
    ("BYE", 200): "",
}
_SHORT = {407: "407 Proxy Auth Required"}
"""Phrases too long for the ladder's column."""
_PHONE = {
    "phone.joining": (RELAY, "STUN Binding Request", "the join: authenticated by the group's credentials"),
    "phone.joined": (RELAY, "STUN Binding Response", "joined: the leg is bound to this terminal"),
    "phone.sending": (RELAY, "RTP AMR + H.264", "live: camera and microphone stream to the relay"),
    "phone.first_picture": (None, "RTP AMR + H.264", "first picture shown"),
    "phone.live": (None, "RTP AMR + H.264", "the picture is live: younger than 200 ms"),
}


@dataclass(frozen=True, slots=True)
class Arrow:
    """One line of the ladder. `at` is wall-clock time, Unix seconds."""

    at: float
    source: str
    target: str
    message: str
    meaning: str = ""
    traits: frozenset[str] = frozenset()
    """What the message carries, as far as a step demands it: sdp, reliable, isfocus, history."""


@dataclass(frozen=True, slots=True)
class Step:
    """One of the mission's fourteen steps, as it happened."""

    number: int
    arrow: Arrow
    viewer: str = ""


@dataclass(slots=True)
class Ladder:
    """All arrows in time order, the steps found, and what is wrong with them."""

    arrows: list[Arrow] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def draw(server: Iterable[Event], phones: Mapping[str, Iterable[Event]]) -> list[Arrow]:
    """The arrows of the server's trace and the phones' own reports; `phones` by number."""
    server = list(server)
    owners = dict(_owners(server))
    arrows = [*_server_arrows(server, owners)]
    for number, events in phones.items():
        arrows += _phone_arrows(number, events)
    return sorted(arrows, key=lambda arrow: arrow.at)


def check(arrows: list[Arrow], service: str, broadcaster: str, viewers: Iterable[str]) -> Ladder:
    """Find the fourteen steps of one broadcast; each has to come after the one before it."""
    ladder = Ladder(arrows)
    first = next((a for a in arrows if a.source == broadcaster and a.message.startswith(f"INVITE {service}")), None)
    since = first.at if first else 0.0
    going_live: list[Wanted] = [
        (1, broadcaster, AS, f"INVITE {service}", {"sdp"}),
        (2, AS, RELAY, "OpenGroup"),
        (3, RELAY, AS, "OpenGroup ok"),
        (4, AS, broadcaster, "183 ", {"sdp", "reliable", "isfocus"}),
        (5, broadcaster, RELAY, "STUN Binding Request"),
        (6, RELAY, AS, "LegJoined"),
        (7, AS, broadcaster, "200 OK (INVITE)"),
        (8, broadcaster, AS, "INVITE *21*"),
        (8, AS, AS, FORWARDED),
        (8, broadcaster, RELAY, "RTP"),
    ]
    _find(ladder, going_live, since, "")
    for position, viewer in enumerate(viewers):
        watching: list[Wanted] = [
            (10, viewer, AS, f"INVITE {broadcaster}"),
            (11, AS, viewer, "181 ", {"history"}),
            (11, AS, RELAY, "AddViewer"),
            (12, RELAY, AS, "AddViewer ok"),
            (13, AS, viewer, "200 OK (INVITE)", {"sdp", "isfocus"}),
            (14, viewer, RELAY, "STUN Binding Request"),
            (9 if position == 0 else 14, RELAY, viewer, "RTP"),
        ]
        _find(ladder, watching, since, viewer)
    ladder.steps.sort(key=lambda step: step.arrow.at)
    return ladder


def endings(arrows: list[Arrow], broadcaster: str, viewers: Iterable[str]) -> list[str]:
    """What is wrong with the end of a broadcast: forwarding withdrawn, media stopped, viewers told why."""
    hung_up = next((a.at for a in arrows if (a.source, a.message) == (broadcaster, "BYE")), None)
    if hung_up is None:
        return [f"the broadcaster {broadcaster} never hung up"]
    withdrawn = next((a.at for a in arrows if a.message == WITHDRAWN and a.at > hung_up), None)
    if withdrawn is None:
        return ["the forwarding was not withdrawn"]
    stopped = next((a.at for a in arrows if a.message == "CloseGroup" and a.at > withdrawn), None)
    if stopped is None:
        return ["the relay was not told to close the group after the forwarding was withdrawn"]
    problems = []
    for viewer in viewers:
        told = next((a for a in arrows if (a.target, a.message) == (viewer, "BYE") and a.at > stopped), None)
        if told is None:
            problems.append(f"viewer {viewer}'s call was not ended after the broadcast")
        elif "Broadcast ended" not in told.meaning:
            problems.append(f"viewer {viewer} was not told why: {told.meaning!r}")
    return problems


def _find(ladder: Ladder, wanted: list[Wanted], since: float, viewer: str) -> None:
    for number, source, target, message, *carrying in wanted:
        for arrow in ladder.arrows:
            here = arrow.at >= since and (arrow.source, arrow.target) == (source, target)
            if here and arrow.message.startswith(message) and all(traits <= arrow.traits for traits in carrying):
                ladder.steps.append(Step(number, arrow, viewer))
                since = arrow.at
                break
        else:
            who = f" (viewer {viewer})" if viewer else ""
            lacking = ", or without what it must carry" if carrying else ""
            what = f"no {message.strip()} from {source} to {target} in its place{lacking}"
            ladder.problems.append(f"step {number}{who}: {what}")
            return


def _owners(server: list[Event]) -> Iterator[tuple[str, str]]:
    """Which number sits behind a transport address: whoever sent a request from there."""
    for event in server:
        if event.get("event") == "sip.received" and event.get("method") in ("REGISTER", "INVITE"):
            yield str(event.get("peer")), str(event.get("from_number"))


def _owner(owners: dict[str, str], event: Event) -> str:
    peer = str(event.get("peer"))
    return owners.get(peer, peer)


def _server_arrows(server: list[Event], owners: dict[str, str]) -> Iterator[Arrow]:
    for event in server:
        at = float(event.get("ts", 0.0))
        match event.get("event"):
            case "sip.received":
                yield from _sip_arrow(event, at, _owner(owners, event), AS)
            case "sip.sent":
                yield from _sip_arrow(event, at, AS, _owner(owners, event))
            case "control.sent" if event["message"] in _CONTROL:
                yield Arrow(at, AS, RELAY, event["message"], _CONTROL[event["message"]][0])
            case "control.answered" if event["message"] in _CONTROL:
                yield Arrow(at, RELAY, AS, f"{event['message']} ok", _CONTROL[event["message"]][1])
            case "control.received" if event["message"] in _REPORTS:
                yield Arrow(at, RELAY, AS, event["message"], _REPORTS[event["message"]])
            case "relay.down":
                yield Arrow(at, AS, AS, "relay gone", "the control link broke; it is dialled ten times a second")
            case "broadcast.reopened":
                number = event["channel"].partition("@")[0]
                yield Arrow(at, AS, AS, "broadcast opened again", f"{number} and its viewers are as they were")
            case "broadcast.forwarded":
                number = event["channel"].partition("@")[0]
                yield Arrow(at, AS, AS, FORWARDED, f"calls to {number} go to {event['target']} now")
            case "broadcast.forwarding_withdrawn":
                number = event["channel"].partition("@")[0]
                yield Arrow(at, AS, AS, WITHDRAWN, f"calls to {number} ring that phone again")


def _sip_arrow(event: Event, at: float, source: str, target: str) -> Iterator[Arrow]:
    method = str(event.get("cseq", "")).rpartition(" ")[2]
    has_sdp = bool(event.get("has_sdp"))
    extra: dict[str, str] = event.get("extra") or {}
    reason = extra.get("reason", "")
    carried = {
        "sdp": has_sdp,
        "reliable": "rseq" in extra,
        "isfocus": "isfocus" in extra.get("contact", ""),
        "history": "cause=302" in extra.get("history-info", ""),
    }
    traits = frozenset(name for name, there in carried.items() if there)
    if status := event.get("status"):
        if status == 100:
            return
        meaning = _RESPONSES.get((method, status), "")
        if status == 200 and method == "INVITE":
            meaning = "call success" if has_sdp else "call success and connection success in one"
        elif status in (401, 407):
            meaning = "challenge: who are you?"
        yield Arrow(at, source, target, f"{_SHORT.get(status, event['line'])} ({method})", meaning, traits)
        return
    line = str(event["line"])
    number = str(event.get("to_number"))
    message, meaning = f"{method} {number}" if method in ("INVITE", "REGISTER") else method, ""
    match method:
        case "REGISTER":
            meaning = "the phone says where it is"
        case "INVITE" if number.startswith(("*", "#")):
            meaning = "a service code of the terminal's own: forward my number (CFU)"
        case "INVITE" if target == AS:
            meaning = f"calls {number}" + (", offering media" if has_sdp else "")
        case "PRACK":
            meaning = "the provisional answer arrived"
        case "ACK" | "CANCEL" | "OPTIONS":
            meaning = line.partition(" ")[2] if method == "OPTIONS" else ""
        case "BYE":
            meaning = reason or "hangs up"
    yield Arrow(at, source, target, message, meaning, traits)


def _phone_arrows(number: str, events: Iterable[Event]) -> Iterator[Arrow]:
    for event in events:
        known = _PHONE.get(str(event.get("event")))
        if known is None:
            continue
        towards, message, meaning = known
        if event["event"] == "phone.joined" or towards is None:
            source, target = RELAY, number
        else:
            source, target = number, towards
        yield Arrow(float(event["ts"]), source, target, message, meaning)
