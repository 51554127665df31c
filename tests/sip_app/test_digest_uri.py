"""Digest credentials are good for the resource they were made for, as far as SIP lets a server ask (RFC 3261 22.4)."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from ua import DOMAIN, Phone, running

from protocols.sip.digest import authorize
from protocols.sip.message import Request, Response
from provisioning.config import Config

OTHER = "other.example"


async def proven(phone: Phone, request: Request, written: str) -> Response:
    """The answer to the request, its credentials right but made for the URI `written`."""
    refused = await phone.ask(request)
    registering = request.method == "REGISTER"
    [offered] = refused.credentials("www-authenticate" if registering else "proxy-authenticate")
    proof = str(authorize(offered, request.method, written, phone.number, phone.password))
    phone.cseq = max(phone.cseq, request.cseq.number + 1)
    headers = request.headers.with_("CSeq", f"{phone.cseq} {request.method}")
    return await phone.ask(
        replace(request, headers=headers.with_("Authorization" if registering else "Proxy-Authorization", proof))
    )


def answered(folder: Path, method: str, uri: str, written: str, *lines: tuple[str, str]) -> tuple[int, str, list[str]]:
    """Status and reason the caller gets, and the warnings in the log."""

    async def scenario() -> tuple[int, str, list[str]]:
        wanted = {"data_dir": folder, "sip": {"port": 0, "allow_targets": [".*@127.0.0.9"]}}
        async with running(folder, config=Config.model_validate(wanted)) as world:
            phone = await world.phone("1001")
            to = f"<sip:1001@{DOMAIN}>" if method == "REGISTER" else f"<{uri}>"
            with capture_logs() as events:
                response = await proven(phone, phone.build(method, uri, to=to, headers=lines), written)
        told = [str(event) for event in events if event["event"] == "identity.other_uri"]
        return response.status, response.reason, told

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("uri", "written"),
    [
        (f"sip:1002@{DOMAIN}", f"sip:1003@{DOMAIN}"),
        (f"sip:1002@{DOMAIN}", "sip:1003@192.0.2.1"),
        ("sip:1@127.0.0.9", f"sip:1@{DOMAIN}"),
        ("sip:1@127.0.0.9", f"sip:{DOMAIN}"),
        ("sip:1@127.0.0.9", "sip:2@127.0.0.9"),
        ("sip:1@127.0.0.9", "sip:::1:5060"),
        ("sip:1@127.0.0.9", "sip:1@127.0.0.9:5070"),
        ("sip:1@127.0.0.9;maddr=127.0.0.8", "sip:1@127.0.0.9"),
    ],
)
def test_credentials_made_for_somebody_else_are_refused_and_the_log_says_so(
    tmp_path: Path, uri: str, written: str
) -> None:
    status, reason, told = answered(tmp_path, "MESSAGE", uri, written)
    assert (status, reason) == (400, "Credentials For Another URI")
    assert len(told) == 1 and "MESSAGE" in told[0]


def test_no_via_lets_credentials_for_us_leave_for_another_domain(tmp_path: Path) -> None:
    via = ("Via", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKfirst")
    assert answered(tmp_path, "MESSAGE", "sip:1@127.0.0.9", f"sip:1@{DOMAIN}", via)[0] == 400


def test_the_log_shows_no_password_of_either(tmp_path: Path) -> None:
    *_, told = answered(tmp_path, "MESSAGE", f"sip:1002:secret@{DOMAIN}", f"sip:1003;x:secret@{DOMAIN}")
    assert len(told) == 1 and "secret" not in told[0]


@pytest.mark.parametrize(
    ("uri", "written"),
    [
        (f"sip:1002@{DOMAIN}", f"sip:1002@{DOMAIN};transport=tcp"),
        (f"sip:1002@{DOMAIN}", f"sips:1002@{DOMAIN}:5061"),
        (f"sip:1002@{DOMAIN}", "tel:+1002"),
        (f"sip:+10-02@{DOMAIN};user=phone", f"sip:1002@{DOMAIN}"),
        (f"sip:1002@{DOMAIN}", "sip:1002@127.0.0.1"),
        (f"sip:1002@{DOMAIN}", "sip:1002@192.0.2.1:5060"),
        (f"sip:1002@{DOMAIN}", "sip:127.0.0.1:5060"),
        (f"sip:1002@{DOMAIN}", f"sip:{DOMAIN}"),
        (f"sip:1002@{DOMAIN}", "sip:::1:5060"),
        (f"sip:1002@{DOMAIN}", "1002"),
        (f"sip:1002@{DOMAIN}", ""),
    ],
)
def test_the_same_number_written_otherwise_is_the_same(tmp_path: Path, uri: str, written: str) -> None:
    status, _, told = answered(tmp_path, "MESSAGE", uri, written)
    assert status == 480 and not told  # 1002 has no phone


@pytest.mark.parametrize("written", ["sip:127.0.0.1:5060", f"sip:1001@{DOMAIN}", "sip:192.0.2.1"])
def test_a_registration_may_name_the_server_as_the_phone_knows_it(tmp_path: Path, written: str) -> None:
    contact = ("Contact", "<sip:1001@127.0.0.1:9>")
    assert answered(tmp_path, "REGISTER", f"sip:{DOMAIN}", written, contact)[0] == 200


def test_a_proxy_on_the_way_may_have_forwarded_the_call_within_our_domains(tmp_path: Path) -> None:
    via = ("Via", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKfirst")
    assert answered(tmp_path, "MESSAGE", f"sip:1002@{DOMAIN}", f"sip:1003@{DOMAIN}", via)[0] == 480
    assert answered(tmp_path, "MESSAGE", f"sip:1002@{DOMAIN}", f"sip:1003@{OTHER}", via)[0] == 400
