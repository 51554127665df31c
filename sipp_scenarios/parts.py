"""The parts a SIPp scenario is put together from: messages, what is waited for, whole calls. Text in, XML text out.

SIPp has no include, so a scenario written out by hand is mostly other scenarios. Here it is a list of parts
(`scenarios/`), and `Scenario.xml` is the file SIPp reads. SIPp's keywords: field0 is the caller's number, field1 its
credentials, field2 what it dials (`Sipp` writes them).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import quoteattr

AT: Final = "[remote_ip]:[remote_port]"
HERE: Final = "[local_ip]:[local_port]"
TAG: Final = "[pid]sipp[call_number]"
SERVER: Final = f"sip:{AT}"
OWN: Final = f"sip:[field0]@{AT}"
DIALLED: Final = f"sip:[field2]@{AT}"
CONTACT: Final = f"Contact: <sip:[field0]@{HERE};transport=[transport]>"
ALLOW: Final = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS"
LOGIN: Final = "[field1]"
HOLD: Final = "5000000"
"""Stands for the holding time (milliseconds) until the scenario is written: SIPp takes no keyword in a timeout."""
SESSION: Final = ("INVITE", "UPDATE", "SUBSCRIBE", "REFER")
"""Methods that carry a Contact inside a dialog."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What one phone does, and the parts that make it do so."""

    does: str
    parts: Sequence[str]

    def xml(self, hold: float = 5.0) -> str:
        """The file SIPp reads; `hold` is how long a call is held, seconds."""
        body = "\n".join(self.parts).replace(HOLD, str(max(1, round(hold * 1000))))
        times = '<ResponseTimeRepartition value="5, 10, 20, 50, 100, 200, 500, 1000, 2000"/>'
        head = f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- {self.does} -->'
        return f"{head}\n<scenario name={quoteattr(self.does)}>\n{body}\n{times}\n</scenario>\n"


@dataclass(frozen=True, slots=True)
class Body:
    """A message body and its type."""

    kind: str
    text: str


# Session descriptions


def sdp(*media: str, version: int = 1) -> Body:
    """A session description of these m-sections."""
    head = ["v=0", f"o=sipp 1 {version} IN IP[local_ip_type] [local_ip]", "s=-"]
    return Body("application/sdp", "\n".join([*head, "c=IN IP[media_ip_type] [media_ip]", "t=0 0", *media]))


def sound(*attributes: str) -> str:
    """PCMU alone."""
    return "\n".join(["m=audio [audio_port] RTP/AVP 0", "a=rtpmap:0 PCMU/8000", *attributes])


def sound_and_picture(direction: str = "sendrecv") -> tuple[str, str]:
    """AMR or PCMU, and H.264, as a stock video phone offers them."""
    audio = "m=audio [audio_port] RTP/AVP 96 0\na=rtpmap:96 AMR/8000\na=fmtp:96 octet-align=1\na=rtpmap:0 PCMU/8000"
    video = "m=video [video_port] RTP/AVP 97\na=rtpmap:97 H264/90000"
    parameters = "a=fmtp:97 profile-level-id=42e01f;packetization-mode=1"
    return f"{audio}\na=ptime:20\na={direction}", f"{video}\n{parameters}\na={direction}"


AUDIO: Final = sdp(sound("a=ptime:20"))
SILENT: Final = sdp(sound("a=inactive"))
VIDEO: Final = sdp(*sound_and_picture())

# Messages


def request(
    method: str,
    cseq: int,
    *headers: str,
    uri: str = DIALLED,
    to: str = DIALLED,
    body: Body | None = None,
    branch: str = "[branch]",
    via: str = HERE,
    cseq_method: str = "",
) -> str:
    """A request outside dialogs; `branch` `[branch-N]` is that of the message N steps before."""
    contact = () if method in ("ACK", "CANCEL", "MESSAGE") else (CONTACT,)
    tag = "[peer_tag_param]" if method == "ACK" else ""
    return _message(
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/[transport] {via};branch={branch};rport",
        f"From: <{OWN}>;tag={TAG}",
        f"To: <{to}>{tag}",
        "Call-ID: [call_id]",
        f"CSeq: {cseq} {cseq_method or method}",
        *(() if any(header.startswith("Contact:") for header in headers) else contact),
        "Max-Forwards: 70",
        *headers,
        body=body,
    )


def inside(
    method: str,
    cseq: int,
    *headers: str,
    body: Body | None = None,
    branch: str = "[branch]",
    own_tag: str = TAG,
    peer_tag: str = "[peer_tag_param]",
    to: str = "",
) -> str:
    """A request within the dialog that an `rrs` has set up. Who was called has `to` from the caller's From."""
    return _message(
        f"{method} [next_url] SIP/2.0",
        f"Via: SIP/2.0/[transport] {HERE};branch={branch};rport",
        "[routes]",
        f"From: <{OWN}>;tag={own_tag}",
        f"To: {to or f'<{DIALLED}>{peer_tag}'}",
        "Call-ID: [call_id]",
        f"CSeq: {cseq} {method}",
        "Max-Forwards: 70",
        *([CONTACT] if method in SESSION else []),
        *headers,
        body=body,
    )


def answer(status: str, *headers: str, body: Body | None = None, new: bool = False) -> str:
    """A response to the request received last; `new` puts our tag into To, for the first of a dialog."""
    return _message(
        f"SIP/2.0 {status}",
        "[last_Via:]",
        "[last_Record-Route:]",
        "[last_From:]",
        f"[last_To:]{f';tag={TAG}' if new else ''}",
        "[last_Call-ID:]",
        "[last_CSeq:]",
        *headers,
        body=body,
    )


def _message(*lines: str, body: Body | None) -> str:
    if body is None:
        return "\n".join([*lines, "Content-Length: 0"])
    return "\n".join([*lines, f"Content-Type: {body.kind}", "Content-Length: [len]", "", body.text])


# Steps


def send(message: str, **attributes: str) -> str:
    """Sends a message."""
    return f"<send{_written(attributes)}><![CDATA[\n\n{message}\n\n]]></send>"


def repeated(message: str, **attributes: str) -> str:
    """Sends a message, and again as RFC 3261 section 17.1 says while nothing comes back."""
    return send(message, retrans="500", **attributes)


def receive(what: str, *actions: str, **attributes: str) -> str:
    """Waits for a response (three digits) or a request."""
    kind = "response" if what.isdigit() else "request"
    done = f"><action>{''.join(actions)}</action></recv>" if actions else "/>"
    return f'<recv {kind}="{what}"{_written(attributes)}{done}'


def expect(words: str) -> list[str]:
    """What must come in this order, e.g. "100? 180 200": with `?` it need not. A 2xx at the end sets up the dialog."""
    *first, last = words.split()
    steps = [receive(word.rstrip("?"), **({"optional": "true"} if word.endswith("?") else {})) for word in first]
    opens = {"rrs": "true"} if last.startswith("2") else {}
    return [*steps, receive(last, rtd="answer", **opens)]


def keep(header: str, name: str, occurrence: int = 1) -> str:
    """Keeps a header's value as `[$name]`; an action of `receive`."""
    return f'<ereg regexp=".*" search_in="hdr" header="{header}:" occurrence="{occurrence}" assign_to="{name}"/>'


KEPT: Final = (
    *(keep("Via", "via1"), keep("Via", "via2", 2), keep("Record-Route", "path")),
    *(keep("From", "caller"), keep("CSeq", "cseq")),
)
"""Actions on an INVITE that is to be answered after something else was received: see `late_answer`."""


def late_answer(status: str, *headers: str, body: Body | None = None) -> str:
    """A response to the INVITE that was `KEPT`. It came through one proxy, so it has two Vias."""
    return _message(
        f"SIP/2.0 {status}",
        "Via: [$via1]",
        "Via: [$via2]",
        "Record-Route: [$path]",
        "From: [$caller]",
        f"To: <{OWN}>;tag={TAG}",
        "Call-ID: [call_id]",
        "CSeq: [$cseq]",
        *headers,
        body=body,
    )


def pause(seconds: float) -> str:
    """Does nothing for so long."""
    return f'<pause milliseconds="{round(seconds * 1000)}"/>'


def label(name: str) -> str:
    """A place to go on from."""
    return f'<label id="{name}"/>'


def go(name: str) -> str:
    """Goes on there."""
    return f'<nop next="{name}"/>'


def _written(attributes: dict[str, str]) -> str:
    return "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())


# Exchanges


def challenged(cseq: int) -> list[str]:
    """The challenge to a request, by a proxy (407) or by whom it is for (401); three steps.

    The request began the transaction `first` and its number. While the server is slow the request is repeated, so the
    challenge comes again when the next request is on its way: SIPp knows by the transaction that it is an old one.
    """
    place, of = f"challenged{cseq}", {"response_txn": f"first{cseq}"}
    wait = receive("100", optional="true", **of), receive("407", auth="true", optional="true", next=place, **of)
    return [*wait, receive("401", auth="true", **of), label(place)]


def ask(
    method: str,
    then: str,
    *headers: str,
    cseq: int = 1,
    uri: str = DIALLED,
    to: str = DIALLED,
    body: Body | None = None,
) -> list[str]:
    """A request outside dialogs other than INVITE: challenged, sent again with credentials, answered by `then`."""
    return [
        repeated(
            request(method, cseq, *headers, uri=uri, to=to, body=body), start_rtd="answer", start_txn=f"first{cseq}"
        ),
        *challenged(cseq),
        repeated(request(method, cseq + 1, *headers, LOGIN, uri=uri, to=to, body=body)),
        *expect(then),
    ]


def invite(body: Body | None, then: str | Sequence[str], *headers: str, cseq: int = 1) -> list[str]:
    """INVITE of what was dialled: challenged, sent again with credentials, answered by `then`."""
    every = [ALLOW, "User-Agent: SIPp", *headers]
    return [
        repeated(request("INVITE", cseq, *every, body=body), start_rtd="answer", start_txn=f"first{cseq}"),
        *challenged(cseq),
        send(request("ACK", cseq, branch="[branch-4]"), ack_txn=f"first{cseq}"),
        repeated(request("INVITE", cseq + 1, *every, LOGIN, body=body)),
        *(expect(then) if isinstance(then, str) else then),
    ]


def refused(body: Body | None, status: str, *headers: str, cseq: int = 1) -> list[str]:
    """INVITE that is refused with `status`, and the ACK for that."""
    steps = invite(body, f"100? 181? 180? 183? {status}", *headers, cseq=cseq)
    return [*steps, send(request("ACK", cseq + 1, branch="[branch-6]"))]


def ack(cseq: int = 2, body: Body | None = None) -> str:
    """ACK for a 2xx."""
    return send(inside("ACK", cseq, body=body))


def acknowledged() -> list[str]:
    """ACK for our 2xx, and again if the caller was slow and the 2xx was repeated (RFC 3261 section 13.3.1.4)."""
    return [receive("ACK"), receive("ACK", optional="true")]


def hang_up(cseq: int = 3) -> list[str]:
    """BYE, with credentials if they are asked for."""
    return [
        repeated(inside("BYE", cseq)),
        receive("407", auth="true", optional="true", next="bye_challenged"),
        receive("401", auth="true", optional="true", next="bye_challenged"),
        receive("200", next="done"),
        label("bye_challenged"),
        repeated(inside("BYE", cseq + 1, LOGIN)),
        receive("200", next="done"),
    ]


def talk(cseq: int = 3) -> list[str]:
    """The call is held and then ended by us, or ended by the far end.

    What the far end asks meanwhile is agreed to. HANGUP is our own runner's word (`Sipp.hang_up`): it is time.
    """
    asked = [
        receive(method, optional="true", next="agree") for method in ("INFO", "OPTIONS", "MESSAGE", "UPDATE", "NOTIFY")
    ]
    return [
        label("talk"),
        receive("BYE", optional="true", next="ended", timeout=HOLD, ontimeout="hang_up"),
        *asked,
        receive("HANGUP", next="hang_up"),
        label("agree"),
        send(answer("200 OK", CONTACT)),
        go("talk"),
        label("hang_up"),
        *hang_up(cseq),
        label("ended"),
        send(answer("200 OK")),
        label("done"),
    ]


def ring(seconds: float = 0.2) -> list[str]:
    """A phone is called and rings."""
    return [receive("INVITE", rrs="true"), send(answer("180 Ringing", CONTACT, new=True)), pause(seconds)]


def hung_up() -> list[str]:
    """The far end hangs up."""
    return [receive("BYE"), send(answer("200 OK"))]
