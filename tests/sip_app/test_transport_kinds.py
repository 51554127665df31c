"""Phones reach the server over TLS, WebSocket and secure WebSocket, over IPv4 and IPv6 at once, and each other."""

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from ua import World, running

from protocols.net import bracketed
from provisioning.config import Config, SipConfig, TlsConfig, WebSocketConfig
from sip_app.transport.tls import identities, trial_certificate

KINDS = ["udp", "tcp", "tls", "ws", "wss"]


@asynccontextmanager
async def every_transport(folder: Path, **sip: Any) -> AsyncIterator[World]:
    """A server that listens on all five, with a trial certificate."""
    config = Config(
        data_dir=folder,
        sip=SipConfig(**{"port": 0, "requests_per_second": 5000} | sip),
        tls=TlsConfig(port=0),
        websocket=WebSocketConfig(port=0, secure_port=0),
    )
    async with running(folder, config=config) as world:
        yield world


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", ["tls", "ws", "wss"])
def test_a_call_crosses_from_udp_and_back_within_its_dialog(tmp_path: Path, kind: str, bind: str) -> None:
    async def scenario() -> None:
        async with every_transport(tmp_path, bind=bind) as world:
            ann, bob = await world.phone("1001"), await world.phone("1002", transport=kind)
            call = await ann.dial("1002")
            tx, request = await bob.asked("INVITE")
            via = request.top_via
            assert via.transport == kind.upper()
            assert via.sent_by == tuple(world.server.endpoint.transports.bound[kind])
            assert [route.sip_uri.param("transport") for route in request.record_routes] == [
                {"wss": "ws"}.get(kind, kind),
                None,
            ]
            dialog = bob.respond(tx, 200)
            await call.answered()
            assert dialog is not None
            await bob.acknowledged()
            _, bye = dialog.request("BYE")
            hanging_up = asyncio.ensure_future(bob.ask(bye))
            await ann.accept("BYE")
            assert (await hanging_up).status == 200

    asyncio.run(scenario())


def test_every_transport_of_every_address_is_listened_on_and_shown(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with every_transport(tmp_path, also_bind=("::1",)) as world:
            addresses = world.server.addresses
            assert [(kind, address.host) for kind, address in addresses] == [
                (kind, host) for host in ("127.0.0.1", "::1") for kind in KINDS
            ]
            four, six = await world.phone("1001"), addresses[5][1]
            from ua import Phone

            other = Phone(six, "1002")
            await other.open()
            world.phones.append(other)
            assert (await other.register()).status == 200
            call = await four.dial("1002")
            _, request = await other.asked("INVITE")
            assert request.top_via.sent_by == ("::1", six.port)
            shown = [(route.sip_uri.host, route.sip_uri.port) for route in request.record_routes]
            assert shown == [("::1", six.port), tuple(world.address)]
            call.cancel()

    asyncio.run(scenario())


def test_the_trial_certificate_is_private_kept_and_names_the_server(tmp_path: Path) -> None:
    pem = trial_certificate(tmp_path / "trial.pem", ("dialcast.internal", "127.0.0.1"))
    assert stat.S_IMODE(pem.stat().st_mode) == 0o600
    first = pem.read_bytes()
    assert identities(x509.load_pem_x509_certificate(first)) == {"dialcast.internal", "127.0.0.1"}
    assert trial_certificate(pem, ("dialcast.internal",)).read_bytes() == first
    assert trial_certificate(pem, ("dialcast.internal", "::1")).read_bytes() != first


def test_a_renewed_certificate_is_taken_by_a_reload_and_a_broken_one_is_not(tmp_path: Path) -> None:
    pem = trial_certificate(tmp_path / "own.pem", ("old.example",))
    config = Config(data_dir=tmp_path, sip=SipConfig(port=0), tls=TlsConfig(port=0, certificate=pem, key=pem))

    async def scenario() -> None:
        async with running(tmp_path, config=config) as world:
            assert await shown(world) == {"old.example"}
            trial_certificate(pem, ("new.example",))
            world.server.reconfigure(config)
            assert await shown(world) == {"new.example"}
            other = trial_certificate(tmp_path / "other.pem", ("other.example",)).read_bytes()
            key, _, _ = pem.read_bytes().partition(b"-----BEGIN CERT")
            _, begin, certificate = other.partition(b"-----BEGIN CERT")
            for unusable in (b"broken", key + begin + certificate):
                pem.write_bytes(unusable)
                world.server.reconfigure(config)
                assert await shown(world) == {"new.example"}

    async def shown(world: World) -> set[str]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection(*world.server.endpoint.transports.bound["tls"], ssl=context)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return identities(x509.load_der_x509_certificate(der))

    asyncio.run(scenario())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_old_tls_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with every_transport(tmp_path) as world:
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            old.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(*world.server.endpoint.transports.bound["tls"], ssl=old)

    asyncio.run(scenario())


@pytest.mark.parametrize(("offered", "agreed"), [("http/1.1", "http/1.1"), ("sip/2", "sip/2"), ("h2", None)])
def test_a_client_that_names_its_protocol_is_let_in(tmp_path: Path, offered: str, agreed: str | None) -> None:
    """Browsers do."""

    async def scenario() -> None:
        async with every_transport(tmp_path) as world:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols([offered])
            _, writer = await asyncio.open_connection(*world.server.endpoint.transports.bound["wss"], ssl=context)
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == agreed
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("asked", "without", "with_another"), [("required", False, False), ("optional", True, False), ("none", True, True)]
)
def test_a_client_must_show_a_certificate_where_that_is_demanded(
    tmp_path: Path, asked: Any, without: bool, with_another: bool
) -> None:
    authority = trial_certificate(tmp_path / "client.pem", ("client.example",))
    another = trial_certificate(tmp_path / "another.pem", ("client.example",))

    async def scenario() -> None:
        config = Config(
            data_dir=tmp_path,
            sip=SipConfig(port=0),
            tls=TlsConfig(port=0, ca=authority, client_certificates=asked),
        )
        async with running(tmp_path, config=config) as world:
            address = world.server.endpoint.transports.bound["tls"]
            for certificate, welcome in ((None, without), (authority, True), (another, with_another)):
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                if certificate is not None:
                    context.load_cert_chain(certificate)
                assert await survives(address, context) is welcome

    async def survives(address: Any, context: ssl.SSLContext) -> bool:
        try:
            reader, writer = await asyncio.open_connection(*address, ssl=context)
            writer.write(b"\r\n\r\n")
            return await asyncio.wait_for(reader.read(2), 3) == b"\r\n"
        except (ssl.SSLError, ConnectionError):
            return False

    asyncio.run(scenario())


def test_a_certificate_that_is_none_is_named_at_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        broken = tmp_path / "broken.pem"
        broken.write_text("nothing")
        config = Config(data_dir=tmp_path, sip=SipConfig(port=0), tls=TlsConfig(port=0, certificate=broken, key=broken))
        with pytest.raises(OSError, match=f"{broken}: no certificate"):
            async with running(tmp_path, config=config):
                pass

    asyncio.run(scenario())


def test_a_contact_shows_the_transport_of_its_flow(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with every_transport(tmp_path) as world:
            endpoint = world.server.endpoint
            for kind in KINDS:
                phone = await world.phone("1001", transport=kind)
                flow = endpoint.transports.udp_flow(phone.flow.local) if kind == "udp" else None
                if flow is None:
                    bindings = await world.server.registrar.bindings("1001@dialcast.internal")
                    flow = max((world.server.registrar.flow_of(binding) for binding in bindings), key=lambda f: f.id)
                host, port = endpoint.transports.bound[kind]
                suffix = {"udp": "", "wss": ";transport=ws"}.get(kind, f";transport={kind}")
                assert endpoint.contact(flow) == f"<sip:{bracketed(host)}:{port}{suffix}>"
                assert endpoint.contact(flow, secure=True).startswith("<sips:")

    asyncio.run(scenario())


def test_a_secure_call_stays_secure(tmp_path: Path) -> None:
    """sips: (RFC 5630) rings only phones on TLS, and our own Contact is a sips: URI too."""

    async def scenario() -> None:
        async with every_transport(tmp_path) as world:
            ann = await world.phone("1001", transport="tls")
            plain = await world.phone("1002")
            refused = await (await ann.dial("1002", uri="sips:1002@dialcast.internal")).final()
            assert refused.status == 480
            secure = await world.phone("1002", transport="wss")
            call = await ann.dial("1002", uri="sips:1002@dialcast.internal")
            await secure.asked("INVITE")
            assert plain.requests.empty()
            call.cancel()
            code = await ann.dial("*21", uri="sips:*21*1003%23@dialcast.internal")
            assert str((await code.answered()).contacts[0].uri).startswith("sips:")

    asyncio.run(scenario())


def test_somebody_who_connects_from_a_port_gets_nothing_meant_for_it(tmp_path: Path) -> None:
    """A connection that came in is never used to reach whoever is said to listen at its address (RFC 5923)."""

    async def scenario() -> None:
        async with every_transport(tmp_path) as world:
            transports = world.server.endpoint.transports
            stranger = await world.phone("1001", transport="tcp", register=False)
            assert (await stranger.request("OPTIONS", "sip:dialcast.internal")).status == 200
            flow = transports.connect(stranger.flow.local)
            transports.send(b"OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n\r\n", flow)
            await asyncio.sleep(0.1)
            assert len(stranger.raw) == 1, "only the answer to its own question"
            assert not transports.alive(flow), "nobody listens there"

    asyncio.run(scenario())
