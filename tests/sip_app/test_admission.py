"""Who a request really comes from, how many a second it may send, and what the trace tells of it."""

import asyncio
from pathlib import Path

import structlog
from ua import DOMAIN, running

from protocols.net import Address, Flow
from protocols.sip.message import Request, parse_message
from provisioning.config import Config, LogConfig, SipConfig
from sip_app.access.admission import Admission
from sip_app.bounds import RateLimit

EDGE, OUTER = Address("10.0.0.1", 5060), Address("10.0.0.2", 5060)


def request(*vias: str) -> Request:
    lines = [f"Via: SIP/2.0/UDP {via}" for via in vias]
    lines += ["From: <sip:1001@d>;tag=a", "To: <sip:1002@d>", "Call-ID: c", "CSeq: 1 INVITE"]
    lines += ["P-Asserted-Identity: <sip:boss@d>", "History-Info: <sip:x@d>;index=1", "Diversion: <sip:x@d>"]
    message = parse_message(("\r\n".join(["INVITE sip:1002@d SIP/2.0", *lines]) + "\r\n\r\n").encode())
    assert isinstance(message, Request)
    return message


def over(remote: Address) -> Flow:
    return Flow("udp", Address("10.0.0.9", 5060), remote)


def test_a_strangers_address_is_where_its_packet_came_from_whatever_it_claims() -> None:
    admission = Admission(SipConfig(trusted_peers=("10.0.0.0/24",)))
    claims = request("192.0.2.1;branch=z9hG4bKa", "10.0.0.1;received=10.0.0.7;branch=z9hG4bKb")
    stranger = Address("192.0.2.1", 1234)
    assert admission.client_address(claims, over(stranger)) == stranger
    admitted = admission.admit(claims, over(stranger), 0.0)
    assert admitted is not None
    assert not admitted.trusted
    assert not any(name in admitted.request.headers for name in ("p-asserted-identity", "history-info", "diversion"))


def test_behind_trusted_peers_it_is_what_the_outermost_of_them_stamped() -> None:
    admission = Admission(SipConfig(trusted_peers=("10.0.0.0/24",)))
    chain = request(
        f"{EDGE.host};branch=z9hG4bKa",
        f"{OUTER.host};received={OUTER.host};rport=5060;branch=z9hG4bKb",
        "192.168.1.5:5062;received=203.0.113.4;rport=40123;branch=z9hG4bKc",
        "10.0.0.5;received=10.0.0.5;branch=z9hG4bKd",
    )
    assert admission.client_address(chain, over(EDGE)) == Address("203.0.113.4", 40123)
    admitted = admission.admit(chain, over(EDGE), 0.0)
    assert admitted is not None
    assert admitted.trusted
    assert "p-asserted-identity" in admitted.request.headers


def test_the_limit_counts_each_host_alone_and_refills() -> None:
    limit = RateLimit(2)
    assert [limit.allows("a", 0.0) for _ in range(3)] == [True, True, False]
    assert limit.allows("b", 0.0)
    assert limit.allows("a", 0.5)
    assert not limit.allows("a", 0.5)
    assert limit.dropped == 2


def test_clients_behind_a_trusted_peer_have_limits_of_their_own() -> None:
    admission = Admission(SipConfig(trusted_peers=("10.0.0.1",), requests_per_second=1))
    one, other = (
        request("10.0.0.1;branch=z9hG4bKa", f"host;received={host};branch=z9hG4bKb") for host in ("1.1.1.1", "2.2.2.2")
    )
    flow = over(EDGE)
    assert all(admission.within_rate(flow, 0.0) for _ in range(10))
    assert admission.admit(one, flow, 0.0) is not None
    assert admission.admit(one, flow, 0.0) is None
    assert admission.admit(other, flow, 0.0) is not None


def test_the_trace_tells_every_message_and_no_secret(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = Config(data_dir=tmp_path, sip=SipConfig(port=0), log=LogConfig(level="debug"))
        async with running(tmp_path, config=config) as world:
            await world.phone("1001")

    with structlog.testing.capture_logs() as events:
        asyncio.run(scenario())
    told = [(event["event"], event["line"]) for event in events if event["event"].startswith("sip.")]
    assert told == [
        ("sip.received", f"REGISTER sip:{DOMAIN}"),
        ("sip.sent", "401 Unauthorized"),
        ("sip.received", f"REGISTER sip:{DOMAIN}"),
        ("sip.sent", "200 OK"),
    ]
    first = next(event for event in events if event["event"] == "sip.received")
    assert (first["from_number"], first["cseq"], first["transport"]) == ("1001", "1 REGISTER", "udp")
    assert "response=" not in str(events)
