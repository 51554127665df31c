"""Calls named so that the count of calls goes wrong, for oneself or for somebody else."""

import asyncio
from pathlib import Path

from ua import OFFER, Call, Phone, World, running

from protocols.sip.message import Request, Response
from provisioning.config import Config, SecurityConfig, SipConfig


def limited_to(calls: int, folder: Path) -> Config:
    security = SecurityConfig.model_validate({"calls_at_once": calls})
    return Config(data_dir=folder, sip=SipConfig(port=0), security=security)


async def invited(phone: Phone, like: Request, number: str, cseq: int, tag: str = "") -> Response:
    """The first answer but 100 to an INVITE of `phone` with the Call-ID of `like`, and its From tag unless given."""
    request = phone.build("INVITE", f"sip:{number}@{phone.domain}", body=OFFER)
    headers = request.headers.with_("Call-ID", like.call_id).with_("CSeq", f"{cseq} INVITE")
    headers = headers.with_("From", f"<sip:{phone.number}@{phone.domain}>;tag={tag or like.from_.tag}")
    request = Request("INVITE", request.uri, headers, request.body)
    challenge = await phone.ask(request)
    call = Call(phone, phone.start(phone.authorized(request, challenge)))
    call.responses = phone.waiting[call.tx]
    while (answer := await call.next()).status == 100:
        pass
    return answer


async def called(world: World) -> tuple[Phone, Phone, Request]:
    """1001 calls 1002, which rings."""
    ann, bob = await world.phone("1001"), await world.phone("1002")
    call = await ann.dial("1002")
    tx, _ = await bob.asked("INVITE")
    bob.respond(tx, 180)
    await call.until(180)
    return ann, bob, call.tx.request


def test_calls_of_one_name_count_each(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=limited_to(1, tmp_path)) as world:
            ann, _, first = await called(world)
            assert (await invited(ann, first, "1003", first.cseq.number + 5)).status == 486

    asyncio.run(scenario())


def test_whoever_is_called_cannot_keep_the_callers_call_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, config=limited_to(2, tmp_path)) as world:
            _, bob, first = await called(world)
            assert (await invited(bob, first, "1003", 7)).status == 482  # the very name of another's call
            assert (await invited(bob, first, "1003", 7, tag="bobs")).status == 480  # a name of his own
            quotas = world.server.quotas
            assert list(quotas._calls) == ["1001@dialcast.internal"], "what was refused counts no longer"
            quotas.end((first.call_id, first.from_.tag))
            assert not quotas._calls

    asyncio.run(scenario())
