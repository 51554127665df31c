"""Registrations (RFC 3261 section 10, RFC 3327, RFC 5626)."""

from typing import Final

from sipp_scenarios.parts import (
    CONTACT,
    HERE,
    LOGIN,
    OWN,
    SERVER,
    Scenario,
    ask,
    challenged,
    expect,
    repeated,
    request,
)

EXPIRES: Final = "Expires: [expires]"
AGAIN: Final = f"Contact: <sip:[field0]@{HERE};transport=[transport]>;expires=1200"
SECOND: Final = f"Contact: <sip:[field0]@{HERE};transport=[transport];line=2>;q=0.5"
INSTANCE: Final = '+sip.instance="<urn:uuid:00000000-0000-4000-8000-[field0]00000000>"'


def register(then: str, *headers: str, cseq: int = 1) -> list[str]:
    """REGISTER, challenged and answered."""
    return ask("REGISTER", then, *headers, cseq=cseq, uri=SERVER, to=OWN)


SCENARIOS: Final = {
    "register": Scenario(
        "REGISTER with digest: challenged (401), repeated with the answer, taken (200). Expires 0 withdraws.",
        [
            repeated(request("REGISTER", 1, EXPIRES, uri=SERVER, to=OWN), start_rtd="answer", start_txn="first1"),
            *challenged(1),
            repeated(request("REGISTER", 2, EXPIRES, LOGIN, uri=SERVER, to=OWN)),
            *expect("200"),
        ],
    ),
    "register_and_refresh": Scenario(
        "Registers, registers again under the same Call-ID for longer, and withdraws.",
        [
            *register("200", "Expires: 600"),
            *register("200", AGAIN, cseq=3),
            *register("200", CONTACT, "Expires: 0", cseq=5),
        ],
    ),
    "register_several": Scenario(
        "Registers two contacts, asks which are there, withdraws all of them by Contact: *.",
        [
            *register("200", CONTACT, SECOND, "Expires: 600"),
            *register("200", "Contact: *", "Expires: 0", cseq=3),
        ],
    ),
    "register_briefly": Scenario(
        "Wants a registration of five seconds, is told the shortest that is granted (423), and takes a minute.",
        [
            *register("423", "Expires: 5"),
            *register("200", "Expires: 60", cseq=3),
            *register("200", "Expires: 0", cseq=5),
        ],
    ),
    "register_with_path": Scenario(
        "Registers through an edge proxy at its own address, which adds Path.",
        [
            *register("200", "Supported: path", f"Path: <sip:edge@{HERE};lr>", "Expires: 600"),
            *register("200", "Expires: 0", cseq=3),
        ],
    ),
    "register_with_foreign_path": Scenario(
        "Registers with a Path that leads to somebody else.",
        register("403", "Supported: path", "Path: <sip:127.0.200.1:9;lr>", "Expires: 600"),
    ),
    "register_outbound": Scenario(
        "Registers the flow itself (RFC 5626), and once more after the phone was switched off and on.",
        [
            *register("200", "Supported: path, outbound", f"{CONTACT};reg-id=1;{INSTANCE}", "Expires: 600"),
            *register("200", "Supported: path, outbound", f"{CONTACT};reg-id=1;{INSTANCE}", "Expires: 0", cseq=3),
        ],
    ),
}
