"""Who means harm, or is broken beyond SIP: floods, forged headers, other people's messages, half messages."""

import re
import time

from sipp_scenarios.behaviours.catalogue import behaviour
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account, Sipp, SippError, Traced
from sipp_scenarios.wire import Datagrams, options, over_tcp
from sipp_scenarios.world import SERVICE, World, equal, one, require

FLOOD = 1500
"""Messages in all; in so many `PARTS`, lest they be lost in the sockets' buffers instead."""
PARTS = 15


def status(text: str) -> str:
    """The status code of a response."""
    return text[8:11]


BROKEN_OFFER = "v=0\r\no=sipp 1 2\r\ns=-\r\nm=audio many RTP/AVP zero\r\nc=nowhere\r\n"
GARBAGE = (
    b"INVITE",
    b"INVITE sip:8888 SIP/2.0\r\n\r\n",
    b"\0" * 300,
    bytes(range(256)) * 20,
    b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP nowhere\r\n\r\n",
    b"OPTIONS sip:\xff\xfe SIP/2.0\r\nContent-Length: -5\r\n\r\n",
    b"BYE sip:a SIP/2.0\r\nVia: SIP/2.0/UDP [::1:;branch=\r\nCSeq: 99999999999999 BYE\r\n\r\n",
    "REGISTER sip:\u202e SIP/9.9\r\n".encode() * 50,
)


def in_dialog(phone: Sipp, method: str, cseq: object, body: str = "", **tags: str) -> bytes:
    """A request within the call of a SIPp phone, made from its ACK; `own` and `peer` replace the tags."""
    text = next(m.text for m in reversed(phone.messages()) if m.sent and m.start_line.startswith("ACK"))
    lines = [line for line in text.strip().splitlines() if not line.startswith(("Content-Length", "Content-Type"))]
    text = "\r\n".join(lines).replace("ACK sip", f"{method} sip", 1)
    text = re.sub(r"branch=\S+?;", f"branch=z9hG4bK{time.monotonic_ns()};", text)
    text = re.sub(r"CSeq: .*", f"CSeq: {cseq} {method}\r", text)
    for header, name in (("From", "own"), ("To", "peer")):
        if name in tags:
            text = re.sub(rf"^({header}: .*tag=)[^\s;]+", rf"\g<1>{tags[name]}", text, flags=re.MULTILINE)
    kind = ["Content-Type: application/sdp"] if body else []
    return "\r\n".join([text, *kind, f"Content-Length: {len(body)}", "", body]).encode()


@behaviour("misbehaviour", "RFC 3261 sections 12.2.2, 14.2, 21.4.1")
def garbage_in_the_dialog(world: World) -> None:
    """A broken offer (400), a CSeq that goes back (500), wrong tags (481), an unreadable CSeq (400), random bytes."""
    with world.talking("go_live", world.accounts[0], SERVICE) as phone, Datagrams(world.host) as line:
        phone.received("SIP/2.0 200")
        phone.quiet(0.3)
        contact = f"\r\nContact: <sip:phone@{line.host}:{line.port}>\r\nContent-Type:".encode()
        for what, wanted, message in (
            (
                "broken offer",
                "400",
                in_dialog(phone, "INVITE", 50, BROKEN_OFFER).replace(b"\r\nContent-Type:", contact),
            ),
            ("CSeq that goes back", "500", in_dialog(phone, "INFO", 5)),
            ("unknown own tag", "481", in_dialog(phone, "BYE", 51, own="nobody")),
            ("unknown peer tag", "481", in_dialog(phone, "BYE", 52, peer="nobody")),
            ("unreadable CSeq", "400", in_dialog(phone, "INFO", "thirteen")),
        ):
            line.send(world.server, message)
            equal(what, [status(text) for text in line.received(5)], [wanted])
        line.send(world.server, *GARBAGE)
        line.received(0.5, 100)
        hung_up(phone)


@behaviour("misbehaviour", "RFC 3261 section 12.2.2")
def bye_of_a_stranger(world: World) -> None:
    """Somebody at another address knows the call's tags and sends BYE: asked for a password, and the call stays up."""
    with world.talking("go_live", world.accounts[0], SERVICE) as phone, Datagrams(world.other_host) as stranger:
        phone.received("SIP/2.0 200")
        phone.quiet(0.3)
        stranger.send(world.server, in_dialog(phone, "BYE", 77))
        found = [status(answer) for answer in stranger.received()]
        require(found in (["401"], ["407"], ["403"]), f"the stranger got {found}")
        hung_up(phone)


def hung_up(phone: Sipp) -> None:
    """The phone is still in its call, and can end it by BYE."""
    require(not any(m.start_line.startswith("BYE") for m in phone.messages()), "the call was ended")
    phone.hang_up()
    one(phone.finished(15), "SIP/2.0 200", "BYE")


@behaviour("misbehaviour", "RFC 3261 section 18.3, 21.4.11")
def huge_headers(world: World) -> str:
    """40 kB of header lines, and 300 lines: refused; the next one on a new connection is served."""
    world.needs_own("the address of TCP")
    tcp, host = world.target.tcp, world.host
    long = options(tcp, host, 9, "Subject: " + "x" * 40_000, transport="TCP")
    many = options(tcp, host, 9, *(f"X-{number}: x" for number in range(300)), transport="TCP")
    found = [status(over_tcp(tcp, host, [message], 0)) for message in (long, many)]
    require(not any(code.startswith("2") for code in found), f"huge headers were served: {found}")
    require(status(over_tcp(tcp, host, [options(tcp, host, 9, transport="TCP")], 0)) == "200", "no service after it")
    with Datagrams(host) as phone:
        phone.send(world.server, options(world.server, host, phone.port, "Subject: " + "x" * 40_000))
        found += [status(text) for text in phone.received(1)]
    return "answered " + ", ".join(code or "by closing" for code in found)


@behaviour("misbehaviour", "RFC 3261 section 18.3")
def slow_tcp(world: World) -> None:
    """A message in thirty pieces is served; one that never ends is cut off after sip.message_timeout."""
    world.needs_own("a short sip.message_timeout")
    tcp, host = world.target.tcp, world.host
    whole = options(tcp, host, 9, transport="TCP")
    size = len(whole) // 30 + 1
    pieces = [whole[place : place + size] for place in range(0, len(whole), size)]
    require(status(over_tcp(tcp, host, pieces, 0.02)) == "200", "a message in pieces is not served")
    began = time.monotonic()
    left = over_tcp(tcp, host, [piece[:1] for piece in pieces], 0.2, 10)
    require(
        "still open" not in left and status(left) != "200", f"a message that never ends holds its connection: {left!r}"
    )
    require(time.monotonic() - began < 9, "it held its connection too long")


@behaviour("misbehaviour", "RFC 3261 section 18.2, RFC 3581")
def forged_via(world: World) -> None:
    """A Via that names a victim: the answer goes to where the request came from, the victim gets nothing."""
    with Datagrams(world.host) as sender, Datagrams(world.other_host) as victim:
        sender.send(world.server, options(world.server, victim.host, victim.port))
        sender.send(
            world.server,
            options(world.server, victim.host, victim.port).replace(b";rport", b";received=" + victim.host.encode()),
        )
        require(sender.received(5), "the sender got no answer")
        require(not victim.received(1), "the victim got an answer")


@behaviour("misbehaviour", "RFC 3261 section 16.4")
def forged_route(world: World) -> None:
    """A call with a Route to a victim: 403, the victim gets nothing."""
    with Datagrams(world.other_host) as victim:
        world.play("route_elsewhere", world.accounts[0], SERVICE, victim=f"{victim.host}:{victim.port}")
        require(not victim.received(0.5), "the victim got a request")


@behaviour("misbehaviour", "RFC 3261 section 12.1.1")
def forged_record_route(world: World) -> None:
    """A call with a Record-Route to a victim: the server's BYE does not go there, however often it is repeated."""
    with (
        Datagrams(world.other_host) as victim,
        world.sipp(
            "record_route_elsewhere", world.accounts[0], "*#21#", keys={"victim": f"{victim.host}:{victim.port}"}
        ) as phone,
    ):
        got = victim.received(3)
        require(not got, f"the victim got {got[0].splitlines()[0] if got else ''}")
        phone.finished(10)


@behaviour("misbehaviour", "RFC 7616 sections 3.3, 5.12")
def replays_credentials(world: World) -> None:
    """A captured REGISTER sent again, from the same address and from another: challenged anew, nothing registered."""
    account = world.accounts[0]
    port = free_ports()
    with world.sipp("register", account, local_port=port, keys={"expires": "600"}) as phone:
        seen = phone.finished(15)
    captured = [m for m in seen if m.sent][-1]
    for host in (world.host, world.other_host):
        with Datagrams(host) as thief:
            text = re.sub(r"branch=\S+?;", f"branch=z9hG4bK{thief.port};", captured.text.strip())
            text = re.sub(r"Call-ID: .*", f"Call-ID: replay-{thief.port}", text)
            thief.send(world.server, "\r\n".join([*text.splitlines(), "", ""]).encode())
            found = [status(answer) for answer in thief.received()]
            require(found in (["401"], ["407"], ["403"]), f"replayed credentials got {found}")
    world.register(account, port=port, expires=0)


def wrong_password(world: World, account: Account) -> list[Traced]:
    """One attempt to register with a wrong password; what came. SIPp fails at the second 401, or hears nothing."""
    guess = Account(account.number, "wrong")
    with world.sipp("register", guess, keys={"expires": "600"}) as phone:
        try:
            phone.finished(3)
        except SippError:
            return phone.messages()
    raise SippError("a wrong password was taken")


@behaviour("misbehaviour", "docs/security.md, guessing")
def guesses_passwords(world: World) -> None:
    """Wrong passwords from one address: blocked after a few, not even challenged; others are served."""
    world.needs_own("a low security.failures_before_block")
    for _guess in range(7):
        seen = wrong_password(world, world.accounts[0])
        if not any(not message.sent for message in seen):
            break
    else:
        raise SippError("seven wrong passwords, and still answered")


@behaviour("misbehaviour", "docs/security.md, limits")
def floods(world: World) -> str:
    """A burst from one address is dropped beyond sip.requests_per_second; another phone is served meanwhile."""
    with Datagrams(world.host) as flood:
        began, answered, burst = time.monotonic(), 0, FLOOD // PARTS
        for _part in range(PARTS):
            flood.send(world.server, *(options(world.server, flood.host, flood.port) for _ in range(burst)))
            answered += len(flood.received(0.03, FLOOD))
        answered += len(flood.received(1, FLOOD))
        seconds = time.monotonic() - began  # without what the other phone takes: on a busy machine that is long
        flood.send(world.server, *(options(world.server, flood.host, flood.port) for _ in range(burst)))
        world.served()
    require(0 < answered <= 200 * (1 + seconds), f"{answered} of {FLOOD} answered in {seconds:.1f} s")
    return f"{answered} of {FLOOD} answered in {seconds:.1f} s"
