"""Calls to other domains find their way by DNS: a real name server, servers that fail, records that are traps."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.names import dns, server
from twisted.names.authority import FileAuthority
from ua import Phone, running

from protocols.net import Address
from protocols.sip.message import Request
from protocols.sip.uri import SipUri, parse_uri
from provisioning.config import Config, DnsConfig, SipConfig, TlsConfig
from sip_app.proxy.resolver import Hop, NextHops, Unresolved
from sip_app.transport.tls import trial_certificate

ZONE = "far.example"
NAPTR, SRV, A, AAAA = dns.Record_NAPTR, dns.Record_SRV, dns.Record_A, dns.Record_AAAA


class Zone(FileAuthority):
    """The records of one domain, and how often it was asked."""

    def loadFile(self, filename: Any) -> None:  # noqa: N802 (Twisted's name)
        """Takes the records themselves instead of a file."""
        soa = dns.Record_SOA(mname=b"ns", rname=b"root", serial=1, refresh=1, retry=1, expire=1, minimum=1)
        self.records = {name.encode(): list(entries) for name, entries in filename.items()}
        self.records.setdefault(ZONE.encode(), []).append(soa)
        self.soa = (ZONE.encode(), soa)
        self.asked: list[str] = []

    def _lookup(self, name: bytes, *arguments: Any) -> Any:
        self.asked.append(name.decode())
        return super()._lookup(name, *arguments)


@asynccontextmanager
async def name_server(records: dict[str, list[Any]]) -> AsyncIterator[tuple[Zone, str]]:
    """A name server for `ZONE` on a loopback port: its zone and HOST:PORT."""
    reactor = AsyncioSelectorReactor(asyncio.get_running_loop())
    zone = Zone(records)
    protocol = dns.DNSDatagramProtocol(server.DNSServerFactory(authorities=[zone]), reactor=reactor)
    port = reactor.listenUDP(0, protocol, interface="127.0.0.1")
    try:
        yield zone, f"127.0.0.1:{port.getHost().port}"
    finally:
        await port.stopListening().asFuture(asyncio.get_running_loop())
        reactor.removeAll()


def resolved(records: dict[str, list[Any]], *uris: str, six: bool = False, **config: Any) -> tuple[list[Any], Zone]:
    """What each URI leads to: its hops, or the Unresolved it raises."""

    async def scenario() -> tuple[list[Any], Zone]:
        async with name_server(records) as (zone, address):
            reactor = AsyncioSelectorReactor(asyncio.get_running_loop())
            hops = NextHops(
                DnsConfig(servers=(address,), **config),
                reactor,
                lambda host: six or ":" not in host,
                loopback=True,
                chance=Random(1),
            )
            found: list[Any] = []
            for text in uris:
                uri = parse_uri(text)
                assert isinstance(uri, SipUri)
                try:
                    found.append(await hops.find(uri))
                except Unresolved as error:
                    found.append(error)
            reactor.removeAll()
            return found, zone

    return asyncio.run(scenario())


def ways(hops: list[Hop]) -> list[str]:
    return [f"{hop.transport} {hop.address}" for hop in hops]


def test_naptr_chooses_the_transport_and_srv_the_host_and_port() -> None:
    records = {
        ZONE: [
            NAPTR(20, 1, b"s", b"SIP+D2U", b"", f"_sip._udp.{ZONE}", 60),
            NAPTR(10, 1, b"s", b"SIPS+D2T", b"", f"_sips._tcp.{ZONE}", 60),
            NAPTR(5, 1, b"s", b"SIP+D2X", b"", "_sip._new.far.example", 60),
        ],
        f"_sips._tcp.{ZONE}": [SRV(1, 0, 5071, f"a.{ZONE}", 60)],
        f"_sip._udp.{ZONE}": [SRV(2, 0, 5080, f"b.{ZONE}", 60), SRV(1, 0, 5081, f"a.{ZONE}", 60)],
        f"a.{ZONE}": [A("127.0.0.11", 60)],
        f"b.{ZONE}": [A("127.0.0.12", 60), A("127.0.0.13", 60)],
    }
    (plain, secure), _ = resolved(records, f"sip:1@{ZONE}", f"sips:1@{ZONE}")
    assert sorted(ways(plain)[2:]) == ["udp 127.0.0.12:5080", "udp 127.0.0.13:5080"]
    assert ways(plain)[:2] == ["tls 127.0.0.11:5071", "udp 127.0.0.11:5081"]
    assert ways(secure) == ["tls 127.0.0.11:5071"]
    assert {hop.name for hop in plain} == {ZONE}, "the certificate is the domain's, not the host's (RFC 5922)"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (f"sip:1@{ZONE}", ["udp 127.0.0.11:5060"]),
        (f"sips:1@{ZONE}", ["tls 127.0.0.11:5061"]),
        (f"sip:1@{ZONE};transport=tcp", ["tcp 127.0.0.11:5060"]),
        (f"sip:1@{ZONE}:5077", ["udp 127.0.0.11:5077"]),
        ("sip:1@192.0.2.1", ["udp 192.0.2.1:5060"]),
        ("sip:1@192.0.2.1;transport=tls", ["tls 192.0.2.1:5061"]),
        (f"sip:1@{ZONE};maddr=192.0.2.3", ["udp 192.0.2.3:5060"]),
    ],
)
def test_without_service_records_the_defaults_of_the_uri_hold(uri: str, expected: list[str]) -> None:
    [hops], _ = resolved({ZONE: [A("127.0.0.11", 60)]}, uri)
    assert ways(hops) == expected


def test_both_families_are_tried_where_we_have_both() -> None:
    records = {ZONE: [A("192.0.2.1", 60), AAAA("2001:db8::1", 60)]}
    [hops], _ = resolved(records, f"sip:1@{ZONE}", six=True)
    assert ways(hops) == ["udp 192.0.2.1:5060", "udp [2001:db8::1]:5060"]


def test_weights_share_the_load() -> None:
    records = {
        f"_sip._udp.{ZONE}": [SRV(1, 90, 1, f"a.{ZONE}", 60), SRV(1, 10, 2, f"a.{ZONE}", 60)],
        f"a.{ZONE}": [A("127.0.0.11", 60)],
    }
    found, _ = resolved(records, *[f"sip:1@{ZONE}"] * 200)
    first = [hops[0].address.port for hops in found]
    assert 160 < first.count(1) < 196


def test_answers_are_remembered_and_absence_too() -> None:
    found, zone = resolved({ZONE: [A("127.0.0.11", 60)]}, *[f"sip:1@{ZONE}"] * 5)
    assert len(found) == 5
    assert len(zone.asked) == len(set(zone.asked)) + 1, "A and NAPTR are asked of the same name, each once"


def test_an_answer_is_believed_no_longer_than_allowed() -> None:
    _, zone = resolved({ZONE: [A("127.0.0.11", 3600)]}, f"sip:1@{ZONE}:1", f"sip:1@{ZONE}:1", max_ttl=0)
    assert zone.asked == [ZONE, ZONE]


def test_memory_is_bounded() -> None:
    records = {f"h{number}.{ZONE}": [A("127.0.0.11", 60)] for number in range(6)}
    uris = [f"sip:1@h{number}.{ZONE}:5060" for number in (0, 1, 2, 3, 0)]
    _, zone = resolved(records, *uris, cache_entries=2)
    assert zone.asked.count(f"h0.{ZONE}") == 2


@pytest.mark.parametrize(
    "trap", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "169.254.169.254"], ids=["none", "many", "all", "local"]
)
def test_records_cannot_send_us_where_no_server_is(trap: str) -> None:
    [error], _ = resolved({ZONE: [A(trap, 60)]}, f"sip:1@{ZONE}")
    assert isinstance(error, Unresolved)
    assert not error.temporary


def test_endless_records_end() -> None:
    records = {f"_sip._udp.{ZONE}": [SRV(1, 1, 5060, f"h{number}.{ZONE}", 60) for number in range(100)]}
    [error], zone = resolved(records, f"sip:1@{ZONE}", max_lookups=8)
    assert isinstance(error, Unresolved)
    assert len(zone.asked) <= 8


def test_what_does_not_exist_is_not_found_and_silence_is_temporary() -> None:
    [error], _ = resolved({}, f"sip:1@nobody.{ZONE}")
    assert (str(error), error.temporary) == ("no such domain", False)

    async def silent() -> None:
        loop = asyncio.get_running_loop()
        wire, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        host, port = wire.get_extra_info("sockname")
        config = DnsConfig(servers=(f"{host}:{port}",), timeout=0.2)
        hops = NextHops(config, AsyncioSelectorReactor(loop), lambda host: True)
        start = loop.time()
        with pytest.raises(Unresolved) as caught:
            await hops.find(SipUri(ZONE))
        assert caught.value.temporary
        assert loop.time() - start < 1
        wire.close()

    asyncio.run(silent())


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a." * 150 + "example"])
def test_an_impossible_name_is_asked_nobody(host: str) -> None:
    [error], zone = resolved({}, f"sip:1@{host}")
    assert isinstance(error, Unresolved)
    assert not zone.asked


# A server and the domains it calls


@asynccontextmanager
async def calling(folder: Path, records: dict[str, list[Any]], **sections: Any) -> AsyncIterator[Phone]:
    """A phone of a server whose operator allows calls to `ZONE`."""
    async with name_server(records) as (_, address):
        config = Config(
            data_dir=folder,
            sip=SipConfig(port=0, allow_targets=(rf".*@{ZONE}",)),
            dns=DnsConfig(servers=(address,)),
            **sections,
        )
        async with running(folder, config=config) as world:
            yield await world.phone("1001")


class Elsewhere:
    """A server of the other domain, which answers every INVITE with one status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.phone = Phone(Address("127.0.0.1", 1), "far")
        self.seen: list[Request] = []

    async def open(self) -> int:
        """Listen; the port."""
        await self.phone.open()
        self.serving = asyncio.create_task(self._serve())
        return self.phone.flow.local.port

    async def _serve(self) -> None:
        while True:
            tx, request = await self.phone.requests.get()
            self.seen.append(request)
            self.phone.flow = tx.flow
            self.phone.respond(tx, self.status)

    def close(self) -> None:
        self.serving.cancel()
        self.phone.close()


def test_a_call_leaves_for_the_domains_hosts_one_after_the_other(tmp_path: Path) -> None:
    """The first is dead (nothing listens there), the second overloaded, the third takes the call."""

    async def scenario() -> None:
        busy, willing = Elsewhere(503), Elsewhere(200)
        ports = [await busy.open(), await willing.open()]
        records = {
            ZONE: [
                NAPTR(1, 1, b"s", b"SIP+D2T", b"", f"_sip._tcp.{ZONE}", 60),
                NAPTR(2, 1, b"s", b"SIP+D2U", b"", f"_sip._udp.{ZONE}", 60),
            ],
            f"_sip._tcp.{ZONE}": [SRV(1, 0, free_port(), f"a.{ZONE}", 60)],
            f"_sip._udp.{ZONE}": [SRV(priority, 0, port, f"a.{ZONE}", 60) for priority, port in enumerate(ports)],
            f"a.{ZONE}": [A("127.0.0.1", 60)],
        }
        async with calling(tmp_path, records) as phone:
            busy.phone.server = willing.phone.server = phone.server
            call = await phone.dial("7", uri=f"sip:7@{ZONE}")
            assert (await call.answered()).status == 200
            assert [len(host.seen) for host in (busy, willing)] == [1, 1]
            assert willing.seen[0].uri == f"sip:7@{ZONE}"
        busy.close()
        willing.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("listens", [True, False])
def test_a_large_request_goes_by_tcp_and_by_udp_where_there_is_none(tmp_path: Path, listens: bool) -> None:
    async def scenario() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()

        class Wire(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                heard.put_nowait("udp " + data.split(b"\r\n")[1].decode())

        async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.put_nowait("tcp " + (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[1].decode())
            writer.close()

        loop = asyncio.get_running_loop()
        wire, _ = await loop.create_datagram_endpoint(Wire, local_addr=("127.0.0.1", 0))
        port = wire.get_extra_info("sockname")[1]
        stream = await asyncio.start_server(read, "127.0.0.1", port) if listens else None
        async with calling(tmp_path, {ZONE: [A("127.0.0.1", 60)]}) as phone:
            for body, way in ((b"", "udp"), (b"v" * 1_500, "tcp" if listens else "udp")):
                call = await phone.dial("7", uri=f"sip:7@{ZONE}:{port}", body=body)
                line = await asyncio.wait_for(heard.get(), 3)
                while line.startswith(way) is False:
                    line = await asyncio.wait_for(heard.get(), 3)
                assert line.startswith(f"{way} Via: SIP/2.0/{way.upper()} ")
                call.cancel()
                while not heard.empty():
                    heard.get_nowait()
        wire.close()
        if stream is not None:
            stream.close()

    asyncio.run(scenario())


def test_a_domain_that_is_not_there_is_404_and_one_nobody_may_call_403(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with calling(tmp_path, {}) as phone:
            assert (await (await phone.dial("7", uri=f"sip:7@{ZONE}")).final()).status == 404
            assert (await (await phone.dial("7", uri="sip:7@other.example")).final()).status == 403

    asyncio.run(scenario())


def free_port() -> int:
    """A TCP port of this machine where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_tls_server_must_prove_the_domain_it_is_called_by(tmp_path: Path) -> None:
    """Of three servers one shows a certificate nobody signed, one that of another domain, the last its own."""
    forged = trial_certificate(tmp_path / "forged.pem", (ZONE,))
    authority = trial_certificate(tmp_path / "right.pem", (ZONE,))
    imposter = trial_certificate(tmp_path / "wrong.pem", ("else.example",))
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(authority.read_bytes() + imposter.read_bytes())

    async def scenario() -> None:
        heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

        async def serving(name: str, pem: Path) -> tuple[asyncio.Server, int]:
            async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with suppress(asyncio.IncompleteReadError, ConnectionError):
                    text = await reader.readuntil(b"\r\n\r\n")
                    heard.put_nowait((name, text.split(b"\r\n")[1].decode()))
                writer.close()

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            listening = await asyncio.start_server(read, "127.0.0.1", 0, ssl=context)
            return listening, listening.sockets[0].getsockname()[1]

        unknown, unknown_port = await serving("unknown", forged)
        wrong, wrong_port = await serving("wrong", imposter)
        right, right_port = await serving("right", authority)
        records = {
            f"_sips._tcp.{ZONE}": [
                SRV(priority, 0, port, f"a.{ZONE}", 60)
                for priority, port in enumerate((unknown_port, wrong_port, right_port))
            ],
            f"a.{ZONE}": [A("127.0.0.1", 60)],
        }
        async with calling(tmp_path, records, tls=TlsConfig(ca=bundle)) as phone:
            await phone.dial("7", uri=f"sips:7@{ZONE}")
            name, via = await asyncio.wait_for(heard.get(), 3)
            assert (name, via.split()[1]) == ("right", "SIP/2.0/TLS")
            assert heard.empty()
        for listening in (unknown, wrong, right):
            listening.close()

    asyncio.run(scenario())
