"""Phones that do not keep to the rules."""

from typing import Final

from sipp_scenarios.parts import (
    AUDIO,
    CONTACT,
    KEPT,
    LOGIN,
    SILENT,
    VIDEO,
    Scenario,
    ack,
    answer,
    challenged,
    expect,
    hang_up,
    hung_up,
    inside,
    invite,
    keep,
    label,
    late_answer,
    pause,
    receive,
    repeated,
    request,
    send,
    talk,
)

SCENARIOS: Final = {
    "drop_200_then_cancel": Scenario(
        "Is answered, overlooks it and cancels; acknowledges the repeated answer then.",
        [
            *invite(SILENT, "100? 200"),
            send(request("CANCEL", 2, branch="[branch-3]")),
            receive("200"),
            pause(0.8),
            ack(),
            *hung_up(),
        ],
    ),
    "never_ack": Scenario(
        "Is answered and never acknowledges it, until the server hangs up.", [*invite(SILENT, "100? 200"), *hung_up()]
    ),
    "never_prack": Scenario(
        "Never acknowledges a reliable provisional answer, until the server gives up (RFC 3262 section 3).",
        [
            *invite(VIDEO, "100? 181 504", "Require: 100rel"),
            send(request("ACK", 2, branch="[branch-4]")),
        ],
    ),
    "prack_out_of_order": Scenario(
        "Acknowledges a provisional answer that never was, then the one that was.",
        [
            *invite(
                VIDEO,
                [
                    receive("100", optional="true"),
                    receive("181", keep("RSeq", "rseq"), rrs="true"),
                    send(inside("PRACK", 3, "RAck: 1 2 INVITE")),
                    receive("481"),
                    repeated(inside("PRACK", 4, "RAck: [$rseq] 2 INVITE")),
                    receive("200"),
                    *expect("200"),
                ],
                "Require: 100rel",
            ),
            ack(),
            *talk(5),
        ],
    ),
    "answer_after_cancel": Scenario(
        "Is cancelled while it rings, and answers the call all the same.",
        [
            receive("INVITE", *KEPT, rrs="true"),
            send(answer("180 Ringing", CONTACT, new=True)),
            receive("CANCEL"),
            send(answer("200 OK", new=True)),
            send(late_answer("200 OK", CONTACT, body=AUDIO)),
            receive("ACK"),
            *hung_up(),
        ],
    ),
    "cancel_and_be_answered": Scenario(
        "Hangs up while it rings, but the answer was on the way: acknowledges it and hangs up again.",
        [
            *invite(AUDIO, "100? 180"),
            send(request("CANCEL", 2, branch="[branch-3]")),
            receive("200"),
            *expect("200"),
            ack(),
            *hang_up(3),
            label("done"),
        ],
    ),
    "bye_before_ack": Scenario(
        "Goes live, and hangs up without acknowledging the answer.",
        [*invite(VIDEO, "100? 183? 200"), *hang_up(3), label("done")],
    ),
    "cancel_nothing": Scenario("Cancels a call that never was.", [send(request("CANCEL", 1)), receive("481")]),
    "route_elsewhere": Scenario(
        "Sends a call along a route of its own making.",
        [
            repeated(request("INVITE", 1, "Route: <sip:[victim];lr>", body=AUDIO), start_txn="first1"),
            *challenged(1),
            send(request("ACK", 1, branch="[branch-4]"), ack_txn="first1"),
            repeated(request("INVITE", 2, "Route: <sip:[victim];lr>", LOGIN, body=AUDIO)),
            *expect("100? 403"),
            send(request("ACK", 2, branch="[branch-3]")),
        ],
    ),
    "record_route_elsewhere": Scenario(
        "Claims that a proxy of its own making lies between: the server's BYE would go there.",
        [*invite(SILENT, "100? 200", "Record-Route: <sip:[victim];lr>"), ack(), *hung_up()],
    ),
}
