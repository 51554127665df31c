"""Calls between phones, and to service codes (RFC 3261 sections 13 to 17, TS 24.604, TS 22.030)."""

from typing import Final

from sipp_scenarios.parts import (
    ALLOW,
    AUDIO,
    CONTACT,
    KEPT,
    SILENT,
    Body,
    Scenario,
    ack,
    acknowledged,
    answer,
    expect,
    hang_up,
    hung_up,
    inside,
    invite,
    label,
    late_answer,
    pause,
    receive,
    refused,
    repeated,
    request,
    ring,
    send,
    talk,
)

ANSWERED: Final = "100? 181? 180? 183? 200"

SCENARIOS: Final = {
    "call": Scenario(
        "Calls a registered number that is not live: it rings, is answered; the caller hangs up after a while.",
        [*invite(AUDIO, "100? 181? 199? 180 199? 181? 180? 200"), ack(), *talk()],
    ),
    "answer": Scenario(
        "Rings, answers one call, and waits for the caller to hang up.",
        [
            *ring(),
            repeated(answer("200 OK", ALLOW, CONTACT, body=AUDIO, new=True)),
            *acknowledged(),
            *hung_up(),
        ],
    ),
    "answered": Scenario(
        "Dials what the server answers itself with silence: whoever does not want to wait hangs up, the server at once "
        "or the caller after the holding time.",
        [*invite(SILENT, ANSWERED), ack(), *talk()],
    ),
    "code": Scenario(
        "Dials a service code such as *21*8888# (forwarding to the service): answered, then ended by the server.",
        [*invite(SILENT, ANSWERED), ack(), *hung_up()],
    ),
    "code_heard": Scenario(
        "Dials a service code and listens to the answer: answered, spoken to, then ended by the server.",
        [*invite(AUDIO, ANSWERED), ack(), *hung_up()],
    ),
    "busy": Scenario("Rings and is busy.", [*ring(), send(answer("486 Busy Here", new=True)), receive("ACK")]),
    "deflect": Scenario(
        "Rings and sends the call to another number (302).",
        [
            *ring(),
            send(answer("302 Moved Temporarily", "Contact: <sip:[deflect_to]@[remote_ip]:[remote_port]>", new=True)),
            receive("ACK"),
        ],
    ),
    "ring_until_cancelled": Scenario(
        "Rings until the call is cancelled, and says so to both requests.",
        [
            receive("INVITE", *KEPT, rrs="true"),
            send(answer("180 Ringing", CONTACT, new=True)),
            receive("CANCEL"),
            send(answer("200 OK", new=True)),
            send(late_answer("487 Request Terminated")),
            receive("ACK"),
        ],
    ),
    "cancel": Scenario(
        "Calls, hears it ring, and hangs up before anybody answers.",
        [
            *invite(AUDIO, "100? 180"),
            send(request("CANCEL", 2, branch="[branch-3]")),
            *expect("200"),
            receive("487"),
            send(request("ACK", 2, branch="[branch-6]")),
        ],
    ),
    **{
        f"refused_{status}": Scenario(f"Calls and is refused with {status}.", refused(AUDIO, status))
        for status in ("403", "404", "480", "482", "484", "486")
    },
    "refused_420": Scenario(
        "Calls and insists on an extension nobody has.", refused(AUDIO, "420", "Require: teleportation")
    ),
    "refused_415": Scenario("Calls with a body nobody reads.", refused(Body("application/x-riddle", "?"), "415")),
    "glare_caller": Scenario(
        "Talks, re-INVITEs while the far end does the same, says 491 and is told 491; then it hangs up.",
        [
            *invite(AUDIO, "100? 180? 200"),
            ack(),
            send(inside("INVITE", 3, body=AUDIO)),
            receive("100", optional="true"),
            receive("INVITE"),
            send(answer("491 Request Pending")),
            receive("ACK"),
            receive("491"),
            send(inside("ACK", 3, branch="[branch-6]")),
            pause(0.2),
            *hang_up(4),
            label("done"),
        ],
    ),
    "glare_callee": Scenario(
        "Answers; when a re-INVITE arrives its own is on the way already, so both say 491.",
        [
            *ring(),
            repeated(answer("200 OK", ALLOW, CONTACT, body=AUDIO, new=True)),
            *acknowledged(),
            receive("INVITE", *KEPT),
            send(inside("INVITE", 1, body=AUDIO, to="[$caller]")),
            receive("100", optional="true"),
            receive("491"),
            send(inside("ACK", 1, branch="[branch-3]", to="[$caller]")),
            send(late_answer("491 Request Pending")),
            receive("ACK"),
            *hung_up(),
        ],
    ),
    "options": Scenario(
        "Asks the server what it can do, without credentials.",
        [
            repeated(request("OPTIONS", 1, "Accept: application/sdp", uri="sip:[remote_ip]:[remote_port]")),
            *expect("200"),
        ],
    ),
    "options_refused": Scenario(
        "OPTIONS that ask for what nobody has.",
        [
            repeated(request("OPTIONS", 1, "Require: teleportation", uri="sip:[remote_ip]:[remote_port]")),
            *expect("420"),
        ],
    ),
}
