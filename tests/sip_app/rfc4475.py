"""RFC 4475 as a table: what each of its 49 messages must meet in the parser and at the running server, and why.

`docs/conformance.md` shows this table; a test keeps them equal (`python tests/sip_app/rfc4475.py` writes it anew).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "conformance.md"
CORPUS = ROOT / "tests" / "rfc4475"
ALIASES = ("example.com", "example.net", "example.org", "company.com", "vivekg.chair-dnrc.example.com")

Parser = Literal["accepts", "400", "505", "refuses"]


@dataclass(frozen=True, slots=True)
class Torture:
    """One message. `server` is the status a stranger gets (None: dropped in silence), `peer` that of a trusted peer,
    who is not challenged first, where nobody has the numbers; `known` that of the same peer where all of them have
    accounts and phones ("peer": no difference). `values` are views the parsed message must show, `stored` the contacts
    that are registered then."""

    name: str
    section: str
    rfc: str
    parser: Parser
    server: int | None
    peer: int | None
    values: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    over: Literal["udp", "tcp"] = "udp"
    known: int | Literal["peer"] = "peer"
    stored: tuple[str, ...] = ()

    @property
    def outcome(self) -> int | None:
        """What whoever may gets."""
        return self.peer if self.known == "peer" else self.known


ASKED = "whoever may not call is told nothing else: the challenge comes before the rest is looked at"
NO_SUCH = "nobody has that number here"
LENIENT = "the RFC allows it, and nothing is ambiguous"

TORTURE = (
    Torture("wsinv", "3.1.1.1", "accept", "accepts", 481, 481,
            {"max_forwards": 68, "call_id": "wsinv.ndaksdj@192.0.2.1", "content_type": "application/sdp"},
            "its To has a tag, and no such dialog is here"),
    Torture("intmeth", "3.1.1.2", "accept", "accepts", 407, 404,
            {"method": "!interesting-Method0123456789_*+`.%indeed'~", "max_forwards": 255}, ASKED,
            known=200),
    Torture("esc01", "3.1.1.3", "accept", "accepts", 407, 404,
            {"uri": "sip:sips%3Auser%40example.com@example.net", "call_id": "esc01.239409asdfakjkn23onasd0-3234"},
            "escapes are part of the user, no other URI",
            known=200),
    Torture("escnull", "3.1.1.4", "accept", "accepts", 401, 404, {"method": "REGISTER"}, ASKED,
            known=200, stored=("sip:%00@host5.example.com", "sip:%00%00@host5.example.com")),
    Torture("esc02", "3.1.1.5", "accept; the method is not REGISTER", "accepts", 407, 403,
            {"method": "RE%47IST%45R"},
            why="the host is no name of ours; where it is, nobody serves the method",
            known=501),
    Torture("lwsdisp", "3.1.1.6", "accept", "accepts", 200, 404, {"method": "OPTIONS"},
            known=200),
    Torture("longreq", "3.1.1.7", "accept", "accepts", 407, 404,
            {"cseq.number": 3882340, "content_length": 150}, ASKED, "tcp",
            known=200),
    Torture("dblreq", "3.1.1.8", "accept; the second message of the datagram is no part of it", "accepts", 401, 404,
            {"method": "REGISTER", "body": b""}, ASKED,
            known=200, stored=("sip:j.user@host.example.com",)),
    Torture("semiuri", "3.1.1.9", "accept; the user holds a semicolon", "accepts", 200, 404,
            {"parsed_uri.decoded_user": "user;par=u@example.net"},
            known=200),
    Torture("transports", "3.1.1.10", "accept every transport in Via", "accepts", 200, 404,
            {"top_via.transport": "UDP"},
            known=200),
    Torture("mpart01", "3.1.1.11", "accept the multipart body", "accepts", 407, 403,
            {"method": "MESSAGE", "content_type": "multipart/mixed"},
            why="its Route leads elsewhere: no open relay; without it the phone gets all parts",
            known=200),
    Torture("unreason", "3.1.1.12", "accept the reason in UTF-8", "accepts", None, None, {"status": 200},
            "an answer nobody asked for"),
    Torture("noreason", "3.1.1.13", "accept the empty reason", "accepts", None, None, {"status": 100, "reason": ""},
            "an answer nobody asked for"),
    Torture("badinv01", "3.1.2.1", "400", "400", 400, 400, why="the first Via, before the stray separators, is good"),
    Torture("clerr", "3.1.2.2", "400 (over a stream: wait)", "400", 400, 400),
    Torture("ncl", "3.1.2.3", "400 (over a stream: close)", "400", 400, 400),
    Torture("scalar02", "3.1.2.4", "400", "400", 400, 400),
    Torture("scalarlg", "3.1.2.5", "drop", "refuses", None, None),
    Torture("quotbal", "3.1.2.6", "400", "400", 400, 400),
    Torture("ltgtruri", "3.1.2.7", "400, or strip the brackets", "400", 400, 400),
    Torture("lwsruri", "3.1.2.8", "400", "400", 400, 400),
    Torture("lwsstart", "3.1.2.9", "400, or read on", "accepts", 407, 404, {"uri": "sip:user@example.com"}, LENIENT,
            known=200),
    Torture("trws", "3.1.2.10", "400, or read on", "accepts", 200, 404,
            {"uri": "sip:remote-target@example.com"}, LENIENT,
            known=200),
    Torture("escruri", "3.1.2.11", "400, or drop the headers", "400", 400, 400),
    Torture("baddate", "3.1.2.12", "400, or ignore the Date", "accepts", 407, 404, {"method": "INVITE"},
            "Date is not used",
            known=200),
    Torture("regbadct", "3.1.2.13", "400", "400", 400, 400),
    Torture("badaspec", "3.1.2.14", "400, or read on", "accepts", 200, 404,
            {"to.display": "Watson, Thomas", "to.uri.host": "example.org"}, LENIENT,
            known=200),
    Torture("baddn", "3.1.2.15", "400, or read on", "accepts", 200, 404, {"from_.display": "Bell, Alexander"},
            "the brackets leave no doubt, and real phones send it",
            known=200),
    Torture("badvers", "3.1.2.16", "505", "505", 505, 505),
    Torture("mismatch01", "3.1.2.17", "400", "400", 400, 400),
    Torture("mismatch02", "3.1.2.18", "501 or 400", "400", 400, 400),
    Torture("bigcode", "3.1.2.19", "drop", "refuses", None, None),
    Torture("badbranch", "3.2.1", "accept; the branch identifies nothing", "accepts", 200, 404,
            {"top_via.branch": "z9hG4bK"},
            known=200),
    Torture("insuf", "3.3.1", "400", "400", 400, 400),
    Torture("unkscm", "3.3.2", "416", "accepts", 416, 416, {"parsed_uri.scheme": "nobodyknowsthisscheme"}, over="tcp"),
    Torture("novelsc", "3.3.3", "416", "accepts", 416, 416, {"parsed_uri.scheme": "soap.beep"}),
    Torture("unksm2", "3.3.4", "4xx from a registrar", "accepts", 401, 403, {"to.uri.scheme": "isbn"}, ASKED),
    Torture("bext01", "3.3.5", "420 naming both extensions", "accepts", 420, 404,
            {"required": frozenset({"nothingsupportsthis", "nothingsupportsthiseither"})},
            why="a stranger: 420 for both; from a phone's side of us, 420 for what is asked of proxies",
            known=420),
    Torture("invut", "3.3.6", "415", "accepts", 407, 404, {"content_type": "application/unknownformat"},
            why="we are no callee but where a call was forwarded to the service, as here",
            known=415),
    Torture("regaut01", "3.3.7", "401; the unknown scheme counts as none", "accepts", 401, 404,
            {"method": "REGISTER"},
            why="a trusted peer needs no credentials",
            known=200),
    Torture("multi01", "3.3.8", "400", "400", 400, 400),
    Torture("mcl01", "3.3.9", "400 (over a stream: close)", "400", 400, 400),
    Torture("bcast", "3.3.10", "drop: never send to the second Via", "accepts", None, None,
            {"status": 200, "top_via.host": "192.0.2.198"}),
    Torture("zeromf", "3.3.11", "483 from a proxy; an answer from whom it is for", "accepts", 200, 483,
            {"max_forwards": 0},
            why="a stranger is answered by us, as the domain; others ask the phone, through us as a proxy"),
    Torture("cparam01", "3.3.12", "register; the parameter is the header's", "accepts", 401, 404,
            {"contacts.0.uri.params": (), "contacts.0.params": (("unknownparam", None),)}, ASKED,
            known=200, stored=("sip:+19725552222@gw1.example.net",)),
    Torture("cparam02", "3.3.13", "register; the parameter is the URI's", "accepts", 401, 404,
            {"contacts.0.uri.params": (("unknownparam", None),), "contacts.0.params": ()}, ASKED, "tcp",
            known=200, stored=("sip:+19725552222@gw1.example.net;unknownparam",)),
    Torture("regescrt", "3.3.14", "register; the Route stays inside the URI", "accepts", 401, 404,
            {"contacts.0.uri.headers": (("Route", "%3Csip:sip.example.com%3E"),), "routes": ()}, ASKED, "tcp",
            known=200, stored=("sip:user@example.com?Route=%3Csip:sip.example.com%3E",)),
    Torture("sdp01", "3.3.15", "406", "accepts", 407, 404, {"content_type": "application/sdp"},
            why="we are no callee but where a call was forwarded to the service, as here",
            known=406),
    Torture("inv2543", "3.4.1", "accept (RFC 2543: no tag, no branch)", "accepts", 407, 404,
            {"from_.tag": "", "top_via.branch": ""}, ASKED,
            known=200),
)  # fmt: skip


def table() -> str:
    """The table as Markdown."""
    rows = ["| message | RFC 4475 | it asks for | parser | stranger | peer, no account | peer, account | reason |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for row in TORTURE:
        statuses = row.server, row.peer, row.outcome
        answers = " | ".join("nothing" if status is None else str(status) for status in statuses)
        rows.append(f"| {row.name} | {row.section} | {row.rfc} | {row.parser} | {answers} | {row.why} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text().partition("| message |")
    DOCUMENT.write_text(before + table() + "\n" + rest.partition("\n\n")[2])
