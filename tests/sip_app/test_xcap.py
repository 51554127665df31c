"""Users read and change their diversions over HTTP, as phones with a settings menu do; codes see the same rules."""

import asyncio
import secrets
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from lxml import etree
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from ua import DOMAIN

from dialcast.compose import ports_of
from protocols.net import Address
from protocols.records import DiversionRule, DiversionRules
from protocols.sip.digest import authorize
from protocols.sip.headers import AuthParams
from provisioning.config import Config, SecurityConfig, SipConfig, XcapConfig
from provisioning.store import Store
from provisioning.subscribers import provision
from sip_app.calls.incoming import Rejected
from sip_app.diversion.rules import registered, switched
from sip_app.xcap.selector import SS
from sip_app.xcap.server import XcapServer

DOCUMENT = "application/vnd.etsi.simservs+xml"
ELEMENT = "application/xcap-el+xml"
ATTRIBUTE = "application/xcap-att+xml"
RULES = f"""<?xml version="1.0" encoding="UTF-8"?>
<simservs xmlns="http://uri.etsi.org/ngn/params/xml/simservs/xcap" xmlns:cp="urn:ietf:params:xml:ns:common-policy">
  <communication-diversion active="true">
    <NoReplyTimer>25</NoReplyTimer>
    <cp:ruleset>
      <cp:rule id="busy">
        <cp:conditions><busy/></cp:conditions>
        <cp:actions>
          <forward-to>
            <target>sip:1003@{DOMAIN}</target>
            <notify-caller>false</notify-caller>
            <reveal-identity-to-target>false</reveal-identity-to-target>
          </forward-to>
        </cp:actions>
      </cp:rule>
      <cp:rule id="always">
        <cp:conditions><rule-deactivated/></cp:conditions>
        <cp:actions><forward-to><target>tel:+1004</target></forward-to></cp:actions>
      </cp:rule>
    </cp:ruleset>
  </communication-diversion>
</simservs>""".encode()
SERVICE = "/~~/simservs/communication-diversion"
BUSY = f'{SERVICE}/cp:ruleset/cp:rule[@id="busy"]'
Headers = dict[str, str]
Reply = tuple[int, Headers, bytes]


class Client:
    """An HTTP client with a user's password; each request is a connection of its own."""

    def __init__(self, address: Address, number: str, tls: ssl.SSLContext | None = None) -> None:
        self.address, self.number, self.tls = address, number, tls
        self.password = f"dialcast-{number}"
        self.offered: AuthParams | None = None
        self.count = 0

    def path(self, node: str = "", user: str = "") -> str:
        return quote(
            f"/simservs.ngn.etsi.org/users/sip:{user or self.number}@{DOMAIN}/simservs.xml{node}", safe="/~@:*="
        )

    async def send(self, method: str, path: str, headers: Headers, body: bytes = b"") -> Reply:
        lines = [f"{method} {path} HTTP/1.1", "Host: xcap", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body and "Transfer-Encoding" not in headers:
            lines.append(f"Content-Length: {len(body)}")
        return await self.raw(("\r\n".join(lines) + "\r\n\r\n").encode() + body)

    async def raw(self, data: bytes) -> Reply:
        reader, writer = await asyncio.open_connection(*self.address, ssl=self.tls)
        writer.write(data)
        async with asyncio.timeout(5):
            head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        first, *lines = head.decode().split("\r\n")
        found = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split()[1]), found, answer

    def authorization(self, method: str, path: str) -> str:
        assert self.offered is not None
        self.count += 1
        return str(authorize(self.offered, method, path, self.number, self.password, nc=self.count))

    async def ask(
        self,
        method: str,
        node: str = "",
        body: bytes = b"",
        kind: str = "",
        user: str = "",
        query: str = "",
        **more: str,
    ) -> Reply:
        """A request with credentials; header names of `more` have underscores."""
        path = self.path(node, user) + query
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if kind:
            headers["Content-Type"] = kind
        if self.offered is None:
            status, asked, _ = await self.send("GET", path, {})
            assert status == 401
            self.offered = AuthParams.parse(asked["www-authenticate"])
        headers["Authorization"] = self.authorization(method, path)
        return await self.send(method, path, headers, body)

    async def put(self, body: bytes = RULES, node: str = "", kind: str = "", **more: str) -> Reply:
        return await self.ask("PUT", node, body, kind or (ELEMENT if node else DOCUMENT), **more)


class World:
    def __init__(self, store: Store, server: XcapServer, tls: ssl.SSLContext | None) -> None:
        assert server.address is not None
        self.store, self.server = store, server
        self.address = Address("127.0.0.1", server.address.port)
        self.tls = tls
        self.bob = self.client("1002")

    def client(self, number: str) -> Client:
        return Client(self.address, number, self.tls)

    async def rules(self) -> DiversionRules | None:
        return (await self.store.diversions.get(f"1002@{DOMAIN}")).own


@asynccontextmanager
async def serving(
    folder: Path,
    tls: ssl.SSLContext | None = None,
    sip: dict[str, Any] | None = None,
    security: dict[str, Any] | None = None,
    **xcap: Any,
) -> AsyncIterator[World]:
    config = Config(
        data_dir=folder,
        sip=SipConfig(port=0, **sip or {}),
        security=SecurityConfig(**security or {}),
        xcap=XcapConfig(**{"port": 0, "requests_per_second": 1000} | xcap),
    )
    store = await Store.open(config)
    await provision(store, config)
    ports = ports_of(store)  # fmt: skip
    reactor = AsyncioSelectorReactor(asyncio.get_running_loop())
    server = XcapServer(config, ports, reactor)
    await server.start()
    try:
        yield World(store, server, tls)
    finally:
        await server.stop()
        await store.close()
        reactor.removeAll()


def run(folder: Path, scenario: Callable[[World], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        async with serving(folder, **options) as world:
            await scenario(world)

    asyncio.run(whole())


def problem(reply: Reply) -> str:
    """What a 409 says is wrong."""
    status, headers, body = reply
    assert (status, headers["content-type"]) == (409, "application/xcap-error+xml")
    return etree.QName(etree.fromstring(body)[0]).localname


def test_a_document_is_put_read_and_deleted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        bob = world.bob
        status, unset, body = await bob.ask("GET")
        assert (status, unset["content-type"]) == (200, DOCUMENT)
        assert [element.tag for element in etree.fromstring(body)] == [f"{{{SS}}}communication-diversion"]
        assert await world.rules() is None, "reading stores nothing"
        status, headers, _ = await bob.put(If_Match=unset["etag"])
        assert status == 200
        assert await world.rules() == DiversionRules(
            (
                DiversionRule(
                    "busy", f"1003@{DOMAIN}", id="busy", notify_caller=False, reveal_identity_to_target="false"
                ),
                DiversionRule("unconditional", f"1004@{DOMAIN}", active=False, id="always"),
            ),
            25,
            True,
        )
        status, got, body = await bob.ask("GET")
        assert (status, got["content-type"], got["etag"]) == (200, DOCUMENT, headers["etag"])
        assert (await bob.put(body))[0] == 200
        assert (await bob.ask("GET"))[1]["etag"] == headers["etag"], "what was read says the same when put back"
        assert (await bob.ask("HEAD"))[::2] == (200, b"")
        status, headers, _ = await bob.ask("DELETE")
        assert (status, headers["etag"]) == (200, unset["etag"])
        assert await world.rules() is None
        assert (await bob.ask("GET"))[1]["etag"] == unset["etag"]

    run(tmp_path, scenario)


def test_elements_and_attributes_are_read(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        bob = world.bob
        await bob.put()
        for node, kind, part in (
            (f"{SERVICE}/NoReplyTimer", ELEMENT, b">25</NoReplyTimer>"),
            (f"{SERVICE}/ss:NoReplyTimer", ELEMENT, b">25</NoReplyTimer>"),
            (f"{SERVICE}/@active", ATTRIBUTE, b"true"),
            (f"{SERVICE}/cp:ruleset/cp:rule[2]/@id", ATTRIBUTE, b"always"),
            (f"{BUSY}/cp:conditions/busy", ELEMENT, b"<busy "),
            (f'{SERVICE}/cp:ruleset/*[1][@id="busy"]/cp:actions/*/notify-caller', ELEMENT, b">false</notify-caller>"),
            ("/~~/simservs/namespace::*", "application/xcap-ns+xml", b"common-policy"),
        ):
            status, headers, body = await bob.ask("GET", node)
            assert (status, headers["content-type"]) == (200, kind), node
            assert part in body
        bound = "?xmlns(a=urn:ietf:params:xml:ns:common-policy)"
        assert (await bob.ask("GET", f"{SERVICE}/a:ruleset", query=bound))[0] == 200
        for node, status in (
            (f"{SERVICE}/cp:ruleset/cp:rule", 404),
            (f"{SERVICE}/cp:ruleset/cp:rule[3]", 404),
            (f"{SERVICE}/ruleset", 404),
            (f"{SERVICE}/@nothing", 404),
            (f"{SERVICE}/x:ruleset", 400),
            (f"{SERVICE}/cp:ruleset[position()=1]", 400),
            (f"{SERVICE}//busy", 400),
            ("/~~/", 400),
        ):
            assert (await bob.ask("GET", node))[0] == status, node

    run(tmp_path, scenario)


def test_elements_and_attributes_are_put_and_deleted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        bob = world.bob
        await bob.put()
        rule = (
            f'<cp:rule xmlns:cp="urn:ietf:params:xml:ns:common-policy" id="late"><cp:conditions><no-answer/>'
            f"</cp:conditions><cp:actions><forward-to><target>sip:8888@{DOMAIN}</target></forward-to></cp:actions></cp:rule>"
        ).encode()
        late = f'{SERVICE}/cp:ruleset/cp:rule[@id="late"]'
        assert (await bob.put(rule, late))[0] == 201
        assert (await bob.put(rule, late))[0] == 200
        assert (await bob.put(b"<NoReplyTimer>15</NoReplyTimer>", f"{SERVICE}/NoReplyTimer"))[0] == 200
        assert (await bob.put(b"false", f"{SERVICE}/@active", ATTRIBUTE))[0] == 200
        deactivated = f"{late}/cp:conditions/rule-deactivated"
        assert (await bob.put(b"<ss:rule-deactivated/>", deactivated))[0] == 201
        rules = await world.rules()
        assert rules
        assert (rules.no_reply_timer, rules.active) == (15, False)
        assert rules.rule("no-answer") == DiversionRule("no-answer", f"8888@{DOMAIN}", active=False, id="late")
        for node in (deactivated, f"{SERVICE}/@active", f"{SERVICE}/NoReplyTimer", late):
            assert (await bob.ask("DELETE", node))[0] == 200, node
            assert (await bob.ask("DELETE", node))[0] == 404
        assert (await bob.put(b"<NoReplyTimer>10</NoReplyTimer>", f"{SERVICE}/NoReplyTimer"))[0] == 201, "in its place"
        rules = await world.rules()
        assert rules
        assert (rules.no_reply_timer, rules.active, rules.rule("no-answer")) == (10, None, None)

    run(tmp_path, scenario)


def test_one_element_can_be_set_where_nothing_ever_was(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        timer = f"{SERVICE}/NoReplyTimer"
        assert (await world.bob.put(b"<NoReplyTimer>15</NoReplyTimer>", timer))[0] == 201
        assert await world.rules() == DiversionRules(None, 15)
        assert (await world.bob.ask("GET", timer))[0] == 200

    run(tmp_path, scenario)


def test_a_rule_that_is_off_may_have_no_target_and_cannot_be_switched_on_without(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert (await world.bob.put(RULES.replace(b"tel:+1004", b"")))[0] == 200
        rules = await world.rules()
        assert rules
        assert DiversionRule("unconditional", "", active=False, id="always") in (rules.rules or ())
        with pytest.raises(Rejected, match="No Forwarding Registered"):
            switched(rules, ("unconditional",), active=True)
        off = f'{SERVICE}/cp:ruleset/cp:rule[@id="always"]/cp:conditions/rule-deactivated'
        assert problem(await world.bob.ask("DELETE", off)) == "constraint-failure"
        assert b"<target/>" in (await world.bob.ask("GET"))[2]
        assert (await world.bob.put((await world.bob.ask("GET"))[2]))[0] == 200
        assert registered(rules, ("unconditional",), "1005@d").rule("unconditional") == DiversionRule(
            "unconditional", "1005@d", id="always"
        )

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("added", "named"),
    [
        (b'<communication-waiting active="true"/>', b"communication-waiting"),
        (b"<originating-identity-presentation-restriction/>", b"originating-identity-presentation-restriction"),
        (b'<extensions><x:y xmlns:x="urn:x"/></extensions>', b"extensions"),
    ],
)
def test_a_service_that_is_not_offered_is_refused_by_name(tmp_path: Path, added: bytes, named: bytes) -> None:
    async def scenario(world: World) -> None:
        reply = await world.bob.put(RULES.replace(b"</simservs>", added + b"</simservs>"))
        assert problem(reply) == "constraint-failure"
        assert named in reply[2]
        reply = await world.bob.put(added, f"/~~/simservs/{named.decode()}")
        assert problem(reply) == "constraint-failure"
        assert named in reply[2]
        hinted = RULES.replace(
            b"<simservs ",
            b'<simservs xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:schemaLocation="urn:x x.xsd" ',
        )
        assert (await world.bob.put(hinted))[0] == 200
        assert (
            problem(await world.bob.put(RULES.replace(b"<simservs ", b'<simservs colour="red" ')))
            == "constraint-failure"
        )

    run(tmp_path, scenario)


def test_a_condition_on_the_etag_is_kept(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        bob = world.bob
        assert (await bob.put(If_None_Match="*"))[0] == 412, "everybody has a document"
        status, headers, _ = await bob.put(If_Match="*")
        assert status == 200
        etag = headers["etag"]
        assert (await bob.ask("GET", If_None_Match=f'"other", {etag}'))[::2] == (304, b"")
        timer = f"{SERVICE}/NoReplyTimer"
        status, headers, _ = await bob.put(b"<NoReplyTimer>10</NoReplyTimer>", timer, If_Match=etag)
        assert (status, headers["etag"] != etag) == (200, True)
        assert (await bob.put(b"<NoReplyTimer>20</NoReplyTimer>", timer, If_Match=etag))[0] == 412
        assert (await bob.ask("DELETE", If_Match=etag))[0] == 412
        rules = await world.rules()
        assert rules
        assert rules.no_reply_timer == 10

    run(tmp_path, scenario)


def test_what_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.bob.put()
        clients = [world.client("1002") for _ in range(8)]
        options = [
            f"{BUSY}/cp:actions/forward-to/{name}" for name in ("notify-served-user", "reveal-identity-to-caller")
        ]
        bodies = [f"<{node.rpartition('/')[2]}>true</{node.rpartition('/')[2]}>".encode() for node in options]
        puts = [client.put(bodies[number % 2], options[number % 2]) for number, client in enumerate(clients)]
        assert {status for status, _, _ in await asyncio.gather(*puts)} <= {200, 201}
        rules = await world.rules()
        assert rules
        busy = rules.rule("busy")
        assert busy
        assert (busy.notify_served_user, busy.reveal_identity_to_caller) == (True, "true")

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        (b"<busy/>", b"<busy>", "not-well-formed"),
        (b"busy", b"b\xffsy", "not-utf-8"),
        (b"<busy/>", b"<lazy/>", "constraint-failure"),
        (b">25<", b">4<", "schema-validation-error"),
        (b"false</notify", b"perhaps</notify", "schema-validation-error"),
        (b'id="always"', b'id="busy"', "schema-validation-error"),
        (b"<rule-deactivated/>", b"<busy/>", "constraint-failure"),
        (b"<busy/>", b"<busy/><no-answer/>", "constraint-failure"),
        (b"<busy/>", b'<cp:sphere value="home"/>', "constraint-failure"),
        (b"sip:1003@", b"sip:4711@", "constraint-failure"),
        (b"sip:1003@", b"sip:1002@", "constraint-failure"),
        (b"tel:+1004", b"sip:0900@example.org", "constraint-failure"),
        (b"sip:1003@dialcast.internal", b"", "constraint-failure"),
    ],
)
def test_a_document_that_is_wrong_says_why_and_changes_nothing(
    tmp_path: Path, old: bytes, new: bytes, wrong: str
) -> None:
    async def scenario(world: World) -> None:
        assert old in RULES
        assert problem(await world.bob.put(RULES.replace(old, new))) == wrong
        assert await world.rules() is None

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("method", "node", "body", "kind", "wrong"),
    [
        ("PUT", f"{SERVICE}/NoReplyTimer", b"<NoReplyTimer>4000</NoReplyTimer>", ELEMENT, "schema-validation-error"),
        ("PUT", f"{SERVICE}/NoReplyTimer", b"<NoReplyTimer>", ELEMENT, "xml-frag-not-well-formed"),
        ("PUT", f"{SERVICE}/NoReplyTimer", b"<a/></x><x>", ELEMENT, "xml-frag-not-well-formed"),
        ("PUT", f"{SERVICE}/NoReplyTimer", b"<other/>", ELEMENT, "cannot-insert"),
        ("PUT", f"{SERVICE}/nowhere/there", b"<there/>", ELEMENT, "no-parent"),
        ("PUT", f'{SERVICE}/cp:ruleset/cp:rule[@id="new"]', b'<cp:rule id="old"/>', ELEMENT, "cannot-insert"),
        ("PUT", f"{SERVICE}/cp:ruleset/cp:rule[7]", b'<cp:rule id="old"/>', ELEMENT, "cannot-insert"),
        ("PUT", f"{SERVICE}/lamp", b"<lamp/>", ELEMENT, "schema-validation-error"),
        ("PUT", f"{SERVICE}/@active", b"perhaps", ATTRIBUTE, "schema-validation-error"),
        ("PUT", f"{SERVICE}/@active", b'" b="', ATTRIBUTE, "not-xml-att-value"),
        ("PUT", f"{SERVICE}/@active", b"<", ATTRIBUTE, "not-xml-att-value"),
        ("PUT", f"{SERVICE}/nowhere/@active", b"true", ATTRIBUTE, "no-parent"),
        ("DELETE", f"{BUSY}/@id", b"", "", "schema-validation-error"),
        ("DELETE", f"{BUSY}/cp:actions", b"", "", "constraint-failure"),
        ("DELETE", f"{SERVICE}/cp:ruleset/cp:rule[1]", b"", "", "cannot-delete"),
        ("DELETE", "/~~/simservs", b"", "", "cannot-delete"),
    ],
)
def test_a_change_that_cannot_be_made_says_why_and_changes_nothing(
    tmp_path: Path, method: str, node: str, body: bytes, kind: str, wrong: str
) -> None:
    async def scenario(world: World) -> None:
        await world.bob.put()
        before = await world.rules()
        reply = await world.bob.ask(method, node, body, kind)
        assert problem(reply) == wrong
        if wrong == "no-parent":
            assert b"~~/simservs/communication-diversion" in reply[2]
        assert await world.rules() == before

    run(tmp_path, scenario)


def test_entities_and_deep_nests_are_refused(tmp_path: Path) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE simservs [<!ENTITY l0 "ha">{laughs}]><simservs>&l11;</simservs>'.encode()
    outside = b'<!DOCTYPE simservs [<!ENTITY x SYSTEM "file:///etc/passwd">]><simservs a="&x;">&x;</simservs>'
    dtd = b'<!DOCTYPE simservs SYSTEM "http://127.0.0.1:1/x.dtd"><simservs/>'
    deep = b"<a>" * 400 + b"</a>" * 400

    async def scenario(world: World) -> None:
        for body in (
            bomb,
            outside,
            dtd,
            deep,
            deep[: 30 * 3] + deep[-30 * 4 :],
            b"",
            b"\x00",
            bomb.decode().encode("utf-16"),
        ):
            assert problem(await world.bob.put(body)) in ("not-well-formed", "not-utf-8")
        for body in (outside, deep):
            reply = await world.bob.put(body, f"{SERVICE}/NoReplyTimer")
            assert problem(reply) == "no-parent" or b"root:" not in reply[2]
        assert REGISTRY.get_sample_value("dialcast_sip_limited_total", {"limit": "xcap.max_depth"})
        assert await world.rules() is None

    run(tmp_path, scenario)


def test_nobody_touches_anothers_document(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.bob.put()
        ann = world.client("1001")
        for method in ("GET", "PUT", "DELETE"):
            assert (await ann.ask(method, user="1002", body=RULES if method == "PUT" else b"", kind=DOCUMENT))[0] == 403
        assert (await ann.ask("GET", user="4711"))[0] == 403
        assert await world.rules()

    run(tmp_path, scenario)


def test_a_password_is_asked_for_and_no_answer_serves_twice(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        bob = world.bob
        await bob.put()
        path = bob.path()
        given = bob.authorization("GET", path)
        assert (await bob.send("GET", path, {"Authorization": given}))[0] == 200
        status, headers, _ = await bob.send("GET", path, {"Authorization": given})
        assert (status, "stale=true" in headers["www-authenticate"]) == (401, True)
        elsewhere = bob.authorization("GET", bob.path(SERVICE))
        assert (await bob.send("GET", path, {"Authorization": elsewhere}))[0] == 401
        other_method = bob.authorization("GET", path)
        assert (await bob.send("DELETE", path, {"Authorization": other_method}))[0] == 401
        for value in ("Basic MTAwMjpkaWFsY2FzdC0xMDAy", "Digest", "Digest x=1", "\x01"):
            assert (await bob.send("GET", path, {"Authorization": value}))[0] in (400, 401)
        bob.password = "wrong"
        assert (await bob.send("GET", path, {"Authorization": bob.authorization("GET", path)}))[0] == 401
        forged = {"X-3GPP-Asserted-Identity": f'"sip:1002@{DOMAIN}"'}
        assert (await bob.send("GET", path, forged))[0] == 401

    run(tmp_path, scenario)


def test_whoever_guesses_is_blocked(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        mallory = world.client("1002")
        mallory.password = "guess"
        assert (await mallory.ask("GET"))[0] == 401
        assert (await mallory.ask("GET"))[0] == 401
        assert (await mallory.send("GET", mallory.path(), {}))[0] == 403

    run(tmp_path, scenario, security={"failures_before_block": 2, "never_block": ()})


def test_it_speaks_tls_with_a_certificate(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=xcap", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.check_hostname = False

    async def scenario(world: World) -> None:
        assert (await world.bob.put())[0] == 200
        assert (await world.bob.ask("GET"))[0] == 200

    run(tmp_path, scenario, tls=trusting, tls_certificate=certificate, tls_key=key)


def test_a_trusted_peer_names_its_user(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        bob = world.bob
        asserted = f'"tel:+861002", "sip:1002@{DOMAIN}"'
        named = {"X-3GPP-Asserted-Identity": asserted, "Content-Type": DOCUMENT}
        assert (await bob.send("PUT", bob.path(), named, RULES))[0] == 200
        assert (await bob.send("GET", bob.path(user="1003"), named))[0] == 403
        nobody = {"X-3GPP-Asserted-Identity": f'"sip:4711@{DOMAIN}"'}
        assert (await bob.send("GET", bob.path(user="4711"), nobody))[0] == 404, "no subscriber, no document"
        assert (await bob.send("GET", bob.path(), {}))[0] == 401

    run(tmp_path, scenario, sip={"trusted_peers": ("127.0.0.1",)})


def test_other_methods_types_and_places_are_refused(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        bob = world.bob
        await bob.put()
        status, headers, _ = await bob.ask("POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD, PUT, DELETE")
        assert (await bob.put(kind="text/plain"))[0] == 415
        assert (await bob.put(b"<NoReplyTimer>10</NoReplyTimer>", f"{SERVICE}/NoReplyTimer", DOCUMENT))[0] == 415
        assert (await bob.put(b"<simservs/>", "/~~/simservs/namespace::*"))[0] == 405
        for path in ("/", "/simservs.ngn.etsi.org/global/index", "/rls-services/users/sip:1002@x/index", "/%00"):
            assert (await bob.send("GET", path, {}))[0] == 404, path
        assert (await bob.send("GET", "/" + "a" * 3000, {}))[0] == 414

    run(tmp_path, scenario)


def test_it_says_what_it_knows(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        status, headers, body = await world.bob.send("GET", "/xcap-caps/global/index", {})
        assert (status, headers["content-type"]) == (200, "application/xcap-caps+xml")
        assert etree.fromstring(body).xpath("//*[local-name()='auid']/text()") == ["xcap-caps", "simservs.ngn.etsi.org"]
        assert (await world.bob.send("DELETE", "/xcap-caps/global/index", {}))[0] == 405

    run(tmp_path, scenario)


def test_size_rate_and_number_are_bounded(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        bob = world.bob
        assert (await bob.put(b" " * 5_000 + RULES))[0] == 413
        headers = {"Transfer-Encoding": "chunked", "Content-Type": DOCUMENT}
        assert (await bob.send("PUT", bob.path(), headers, b"3\r\nabc\r\n0\r\n\r\n"))[0] == 411
        idle = [await asyncio.open_connection(*world.address) for _ in range(3)]
        reader, writer = await asyncio.open_connection(*world.address)
        assert await reader.read() == b"", "the fourth finds no room"
        writer.close()
        async with asyncio.timeout(4):
            with pytest.raises(ConnectionResetError):  # and the first has its time
                await idle[0][0].read()
        for _, writer in idle:
            writer.close()
        await asyncio.sleep(0.1)
        statuses = [(await bob.send("GET", "/", {}))[0] for _ in range(10)]
        assert statuses[-1] == 503

    run(
        tmp_path, scenario, max_body_bytes=4_096, max_connections=3, connection_lifetime=1.0, requests_per_second=6
    )  # fmt: skip


def test_garbage_is_no_request(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for data in (b"\x16\x03\x01" + secrets.token_bytes(200) + b"\r\n\r\n", b"GET\r\n\r\n", b"PUT / HTTP/9\r\n\r\n"):
            reader, writer = await asyncio.open_connection(*world.address)
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(5):
                assert not (await reader.read()).startswith(b"HTTP/1.1 2")
            writer.close()
        await world.bob.put()
        assert (await world.bob.ask("GET"))[0] == 200

    run(tmp_path, scenario)


def test_a_port_that_is_taken_does_not_keep_calls_from_being_served(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        config = Config(data_dir=tmp_path, xcap=XcapConfig(port=world.address.port))
        second = XcapServer(config, world.server._ports, world.server._reactor)
        with capture_logs() as events:
            await second.start()
        assert second.address is None
        (event,) = events
        assert (event["event"], event["setting"]) == ("xcap.not_served", "xcap.port")
        assert (event["address"], event["error"]) == (str(world.address), "Address already in use")
        await second.stop()

    run(tmp_path, scenario)
