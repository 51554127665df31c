"""Service codes as one-shot calls (3GPP TS 22.030 annex B), and the words of Reason headers (RFC 3326)."""

import asyncio
import re

from terminal_client.messages import Answered, Ended
from terminal_client.offer import describe_inactive
from terminal_client.signalling import Line, Lost

CODES = (
    ("*21*NUMBER#", "forward all my calls to NUMBER"),
    ("**21*NUMBER#", "the same: register and activate"),
    ("*21#", "forward again, to the number set before"),
    ("#21#", "stop forwarding, remember the number"),
    ("##21#", "stop forwarding and forget the number"),
    ("*#21#", "ask whether my calls are forwarded"),
    ("*67*NUMBER#", "forward calls while I am busy; **67, *67#, #67#, ##67#, *#67# as above"),
    ("*61*NUMBER#", "forward calls I do not answer; the others as above"),
    ("*61*NUMBER**SECONDS#", "the same after 5, 10, ... 30 seconds of ringing"),
    ("*62*NUMBER#", "forward calls while I cannot be reached; the others as above"),
    ("*004*NUMBER#", "forward calls in all three cases (67, 61, 62); the others as above"),
    ("##002#", "stop all forwarding and forget the numbers; *002*NUMBER# sets all at once"),
)
CODE_SECONDS = 5.0


async def send_code(line: Line, code: str) -> tuple[bool, Ended]:
    """Dial a code as a one-shot call: whether it was accepted, and its end with the words of the BYE's Reason."""
    call = line.dial(line.options.uri(code), describe_inactive(line.options.local_host))
    accepted = False
    try:
        async with asyncio.timeout(CODE_SECONDS):
            while True:
                match await call.update():
                    case Answered():
                        accepted = True
                    case Ended(status=status, reason=reason, why=why):
                        return accepted, Ended(call.number, status, reason_text(why) or reason)
                    case Lost(detail):
                        return False, Ended(call.number, 0, detail)
                    case _:
                        continue
    except TimeoutError:
        call.hang_up()
        return accepted, Ended(call.number, 0 if accepted else 408, "accepted" if accepted else "no answer")


def reason_text(why: str) -> str:
    """The words in a Reason header's value (RFC 3326), if it has any."""
    found = re.search(r'text="((?:[^"\\]|\\.)*)"', why)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else ""


def is_normal(why: str) -> bool:
    """True unless the Reason names another cause than normal clearing (Q.850 16, 31) or success."""
    return _cause(why) in {None, ("q.850", 16), ("q.850", 31), ("sip", 200)}


def is_refusal(why: str) -> bool:
    """True if the Reason says that we may not, as after a wrong PIN."""
    return _cause(why) == ("sip", 403)


def _cause(why: str) -> tuple[str, int] | None:
    found = re.search(r"(?i)^\s*(q\.850|sip)\s*;.*?cause\s*=\s*(\d+)", why)
    return None if found is None else (found[1].lower(), int(found[2]))
