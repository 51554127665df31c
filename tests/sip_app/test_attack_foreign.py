"""Calls to other domains, led astray: by maddr, by numbers written oddly, by records that point into our network."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from test_quotas import Clock, quotas
from test_transport_resolver import ZONE, A, name_server
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from ua import running

from protocols.sip.uri import SipUri, parse_uri
from provisioning.config import Config, DnsConfig, SipConfig
from sip_app.calls.incoming import Rejected
from sip_app.numbers import NumberPlan
from sip_app.proxy.resolver import NextHops, Unresolved


def test_maddr_does_not_lead_to_a_host_nobody_allowed(tmp_path: Path) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        heard: list[bytes] = []

        class Victim(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                heard.append(data)

        wire, _ = await loop.create_datagram_endpoint(Victim, local_addr=("127.0.0.5", 0))
        port = wire.get_extra_info("sockname")[1]
        config = Config(data_dir=tmp_path, sip=SipConfig(port=0, allow_targets=(rf"[0-9]+@{ZONE}",)))
        async with running(tmp_path, config=config) as world:
            ann = await world.phone("1001")
            call = await ann.dial("", uri=f"sip:1@{ZONE}:{port};maddr=127.0.0.5")
            assert (await call.final()).status == 403
        assert not heard
        wire.close()

    asyncio.run(scenario())


SAME = ["0900123@gw", "0-900.123@gw", "(0900)123@gw", "0900123;isub=1@gw", "09 00123@gw", "0900\r\n123@gw"]


@pytest.mark.parametrize("written", SAME)
def test_a_denied_number_is_denied_however_it_is_written(written: str) -> None:
    counted, _ = quotas(Clock(), deny_targets=(r"0900.*@gw",))
    with pytest.raises(Rejected, match="403"):
        counted.leave({"1001@d"}, written)


@pytest.mark.parametrize("written", SAME)
def test_a_pattern_that_excepts_a_number_excepts_it_however_it_is_written(tmp_path: Path, written: str) -> None:
    config = Config(data_dir=tmp_path, sip=SipConfig(port=0, allow_targets=(r"(?!0900)[\s\S]*@gw",)))
    plan = NumberPlan(config, ())
    assert not plan.may_leave_for(written)
    assert plan.may_leave_for("john.smith@gw") and plan.may_leave_for("0-800@gw")


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("10.1.2.3", False), ("172.20.0.1", False), ("192.168.0.1", False), ("100.64.0.1", False),
        ("127.0.0.1", False), ("192.0.2.1", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["record", "literal", "wanted"])
def test_whoever_owns_an_allowed_domain_cannot_point_us_into_our_own_network(
    target: str, allowed: bool, way: str
) -> None:
    async def scenario() -> list[Any]:
        async with name_server({ZONE: [A(target, 60)]}) as (_, address):
            reactor = AsyncioSelectorReactor(asyncio.get_running_loop())
            config = DnsConfig(servers=(address,), private_addresses=way == "wanted")
            hops = NextHops(config, reactor, lambda host: ":" not in host)
            uri = parse_uri(f"sip:1@{target if way == 'literal' else ZONE}")
            assert isinstance(uri, SipUri)
            try:
                return list(await hops.find(uri))
            except Unresolved:
                return []
            finally:
                reactor.removeAll()

    loopback = target.startswith("127.")
    # A private literal is what an operator's pattern named.
    assert bool(asyncio.run(scenario())) is (allowed or (way != "record" and not loopback))
