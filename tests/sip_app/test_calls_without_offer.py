"""Going live and watching by gear that sends no offer: the media flows where the ACK says (RFC 3261 section 13.2.1)."""

import asyncio
from pathlib import Path

from protocols.sdp import parse
from protocols.sip.dialog import uac_dialog
from tests.sip_app.broadcast_world import BROADCASTER, MediaPhone, broadcasting, until
from tests.sip_app.ua import Call


async def called(phone: MediaPhone, number: str) -> Call:
    """A call without an offer; the answer to ours goes with the ACK."""
    call: Call = await phone.dial(number, body=b"")
    response = await call.until(200)
    offer = parse(response.body)
    answer = phone.offer()
    for media in offer.media:
        theirs = str(media.formats[0].payload_type).encode()
        if media.kind == "video":
            fmtp = b"a=fmtp:96 " + media.formats[0].fmtp.encode() + b"\r\n"
            answer = answer.replace(b"RTP/AVP 96", b"RTP/AVP " + theirs).replace(b"rtpmap:96", b"rtpmap:" + theirs)
            answer += fmtp.replace(b"96", theirs, 1)
    phone.connect(response.body)
    call.dialog = uac_dialog(call.tx.request, response, phone.flow)
    ack = call.dialog.ack(call.tx.request.cseq.number, body=answer, content_type="application/sdp")
    phone.layer.send_stateless(ack, phone.flow)
    phone.pump()
    return call


def test_sound_flows_from_a_broadcaster_to_a_viewer_neither_of_whom_offered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with broadcasting(tmp_path) as world:
            phone, viewer = await world.phone(BROADCASTER), await world.phone("1002")
            await called(phone, "8888")
            await world.forwarded()
            await called(viewer, BROADCASTER)
            await until(lambda: all(medium.spec.sends for leg in world._views("1002") for medium in leg.media.values()))

            async def heard() -> bool:
                phone.audio.send(b"sound")
                await asyncio.sleep(0.02)
                return any(packet.payload == b"sound" for packet in viewer.audio.packets)

            await until(heard)

    asyncio.run(scenario())
