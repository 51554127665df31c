"""Going live and watching as stock phones do (docs/call-flows.md)."""

from typing import Final

from sipp_scenarios.parts import (
    VIDEO,
    Body,
    Scenario,
    ack,
    expect,
    inside,
    invite,
    keep,
    pause,
    receive,
    refused,
    repeated,
    sdp,
    sound_and_picture,
    talk,
)

WATCHED: Final = "100? 181? 180? 183? 200"
MEDIA_CONTROL: Final = Body(
    "application/media_control+xml",
    '<?xml version="1.0" encoding="utf-8"?>\n<media_control><vc_primitive><to_encoder><picture_fast_update/>'
    "</to_encoder></vc_primitive></media_control>",
)


def media(direction: str, version: int) -> Body:
    """The stock phone's media in another direction."""
    return sdp(*sound_and_picture(direction), version=version)


def press(keys: str, cseq: int) -> list[str]:
    """Presses keys, each an INFO as of old (application/dtmf-relay)."""
    steps: list[str] = []
    for place, key in enumerate(keys):
        body = Body("application/dtmf-relay", f"Signal={key}\nDuration=160")
        steps += [repeated(inside("INFO", cseq + place, body=body)), receive("200"), pause(0.05)]
    return steps


SCENARIOS: Final = {
    "go_live": Scenario(
        "A stock phone dials the service number, sends sound and picture, and hangs up after the holding time.",
        [*invite(VIDEO, "100? 183? 200"), ack(), *talk(100)],
    ),
    "watch": Scenario(
        "A stock phone calls a broadcaster's number: 181 (forwarded), 200 with the stream, until one hangs up.",
        [*invite(VIDEO, WATCHED), ack(), *talk()],
    ),
    "watch_reliably": Scenario(
        "Watches, and wants every provisional answer to be reliable (100rel): the 181 is acknowledged by PRACK.",
        [
            *invite(
                VIDEO,
                [
                    receive("100", optional="true"),
                    receive("181", keep("RSeq", "rseq"), rrs="true"),
                    repeated(inside("PRACK", 3, "RAck: [$rseq] 2 INVITE")),
                    receive("200"),
                    *expect("200"),
                ],
                "Require: 100rel",
            ),
            ack(),
            *talk(4),
        ],
    ),
    "watch_on_hold": Scenario(
        "Watches, puts the call on hold by re-INVITE, takes it up again, and hangs up.",
        [
            *invite(VIDEO, WATCHED),
            ack(),
            repeated(inside("INVITE", 3, body=media("inactive", 2))),
            *expect("100? 200"),
            ack(3),
            pause(0.2),
            repeated(inside("INVITE", 4, body=media("recvonly", 3))),
            *expect("100? 200"),
            ack(4),
            *talk(5),
        ],
    ),
    "watch_without_offer": Scenario(
        "Calls without a session description: the server's offer is in the 200, the answer in the ACK.",
        [*invite(None, WATCHED), ack(body=media("recvonly", 1)), *talk()],
    ),
    "watch_with_updates": Scenario(
        "Watches, and refreshes the session by UPDATE (RFC 4028).",
        [
            *invite(VIDEO, WATCHED, "Supported: timer", "Session-Expires: 1800;refresher=uac"),
            ack(),
            repeated(inside("UPDATE", 3, "Supported: timer", "Session-Expires: 1800;refresher=uac")),
            *expect("200"),
            *talk(4),
        ],
    ),
    "watch_with_short_session": Scenario(
        "Wants sessions of 20 seconds, is told the shortest (422), and takes that.",
        [
            *refused(VIDEO, "422", "Supported: timer", "Session-Expires: 20"),
            *invite(VIDEO, WATCHED, "Supported: timer", "Session-Expires: 90;refresher=uac", "Min-SE: 90", cseq=3),
            ack(4),
            *talk(5),
        ],
    ),
    "watch_and_ask_for_picture": Scenario(
        "Watches, and asks for a full picture by INFO (RFC 5168) when it is told to (ASK).",
        [
            *invite(VIDEO, WATCHED),
            ack(),
            receive("ASK"),
            repeated(inside("INFO", 3, body=MEDIA_CONTROL)),
            receive("200"),
            *talk(4),
        ],
    ),
    "watch_with_pin": Scenario(
        "Is asked for a PIN, presses a wrong one, then the right one, and watches.",
        [*invite(VIDEO, WATCHED), ack(), pause(0.3), *press("0000#", 3), pause(0.3), *press("4711#", 8), *talk(13)],
    ),
    "watch_with_wrong_pins": Scenario(
        "Is asked for a PIN and knows none: after the third wrong one the server hangs up.",
        [*invite(VIDEO, WATCHED), ack(), pause(0.3), *press("1#2#3#", 3), *talk(9)],
    ),
}
