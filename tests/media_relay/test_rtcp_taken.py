"""Neither another's RTCP address in the SDP nor a forged check takes away what a viewer sends."""

from dataclasses import replace

import pytest
from relay_world import HOST, PT, World, check

from protocols.control import AddViewer, LegLost, LegSpec, RemoveLeg
from protocols.rtp.packet import RtpPacket
from protocols.rtp.rtcp import ReceiverReport


@pytest.mark.parametrize("left", [False, True], ids=["there", "left"])
@pytest.mark.parametrize("client", [HOST, "192.0.2.7"], ids=["same host", "a stranger elsewhere"])
def test_a_viewer_whose_sdp_names_another_s_rtcp_address_does_not_take_its_reports(
    world: World, client: str, left: bool
) -> None:
    sources, _ = world.broadcaster("audio")
    first, spec, place = world.viewer("audio")
    sources["audio"].send(b"1")
    world.step()
    attacker = world.peer("audio", HOST)
    media = replace(attacker.spec(sends=True), rtcp=first.rtcp_address)
    if client != HOST:
        media = replace(media, rtp=media.rtp._replace(host=client))
    world.do(AddViewer("1001", 1, LegSpec("attacker", "2001", client, (media,))))
    if left:
        world.do(RemoveLeg("1001", 1, "attacker"))

    def each() -> None:
        sources["audio"].send(b"x")
        first.send_rtcp(place.rtcp, ReceiverReport(1))

    world.pass_time(40, every=0.5, each=each)
    assert [event for event in world.events if isinstance(event, LegLost) and event.leg_id == spec.leg_id] == []
    assert world.silent_for(spec.leg_id) is not None and world.silent_for(spec.leg_id) < 1


def test_a_forged_check_from_another_viewer_s_address_does_not_take_what_it_sends(world: World) -> None:
    """Needs a forged source address; the attacker's credentials are his own."""
    sources, _ = world.broadcaster("audio")
    first, spec, place = world.viewer("audio")
    sources["audio"].send(b"1")
    world.step()
    _, forger, theirs = world.viewer("audio", ice=True)
    first.rtp.sendto(check(theirs), theirs.rtp)
    world.step()
    world.do(RemoveLeg("1001", 1, forger.leg_id))

    def each() -> None:
        sources["audio"].send(b"x")
        first.send(RtpPacket(PT["audio"], 1, 1, 1, b"x"), place.rtp)

    world.pass_time(40, every=0.5, each=each)
    assert [event for event in world.events if isinstance(event, LegLost) and event.leg_id == spec.leg_id] == []
