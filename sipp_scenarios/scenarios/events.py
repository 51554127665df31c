"""Subscriptions and texts (RFC 6665, RFC 4575, RFC 4235, RFC 3856, RFC 3428)."""

from typing import Final

from sipp_scenarios.parts import (
    CONTACT,
    HOLD,
    Body,
    Scenario,
    answer,
    ask,
    expect,
    go,
    inside,
    label,
    receive,
    repeated,
    send,
)

SUBSCRIBED: Final = [
    *ask("SUBSCRIBE", "200", "Event: [event]", "Expires: 600"),
    receive("NOTIFY"),
    send(answer("200 OK", CONTACT)),
    label("more"),
    receive("NOTIFY", optional="true", next="told", timeout=HOLD, ontimeout="leave"),
    receive("HANGUP", next="leave"),
    label("told"),
    send(answer("200 OK", CONTACT)),
    go("more"),
    label("leave"),
]

SCENARIOS: Final = {
    "subscribe": Scenario(
        "Subscribes to an event, is told, and unsubscribes after the holding time.",
        [
            *SUBSCRIBED,
            repeated(inside("SUBSCRIBE", 3, "Event: [event]", "Expires: 0")),
            *expect("200"),
            receive("NOTIFY"),
            send(answer("200 OK", CONTACT)),
        ],
    ),
    "subscribe_until_over": Scenario(
        "Subscribes to an event and is told until there is nothing more to tell.", SUBSCRIBED
    ),
    "subscribe_refused": Scenario("Subscribes to an event nobody knows.", ask("SUBSCRIBE", "489", "Event: [event]")),
    "message": Scenario("Sends a text.", ask("MESSAGE", "202", body=Body("text/plain", "[text]"))),
    "take_message": Scenario("Takes a text.", [receive("MESSAGE"), send(answer("200 OK", new=True))]),
}
