"""What a leg had under a relay that died: asked for again, and granted as far as it is free."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from relay_world import HOST, World

from protocols.control import (
    AddViewer,
    ControlError,
    KeptMedia,
    LegInfo,
    LegMedia,
    LegPlace,
    LegPlaced,
    LegSpec,
    OpenGroup,
    UpdateLeg,
    expect,
)
from protocols.net import Address
from provisioning.config import RelayConfig


@pytest.fixture
def world() -> Iterator[World]:
    made = World(RelayConfig(port_min=30000, port_max=30999), engine_kind="plain")
    yield made
    made.close()


def kept(port: int, *, shared: bool, peer: Address | None = None) -> KeptMedia:
    """What a leg had at this port."""
    where = Address(HOST, port)
    media = LegMedia("video", where, Address(HOST, port + 1), "ufrg", "p" * 22, shared)
    return KeptMedia(media, LegPlace("video", peer, Address(peer.host, peer.port + 1)) if peer is not None else None)


def add(world: World, name: str, wish: KeptMedia, *, ice: bool = False) -> LegMedia:
    """A viewer of 1001 that had this; what it has now."""
    media = world.peer("video").spec(sends=True, ice=ice)
    return expect(world.do(AddViewer("1001", 1, LegSpec(name, "2", HOST, (media,), (wish,)))), LegInfo).media[0]


def test_ports_and_credentials_are_granted_again_to_source_and_viewers(world: World) -> None:
    source = world.peer("video").spec(receives=True, ice=True)
    leg = LegSpec("s", "1001", HOST, (source,), (kept(30500, shared=False),))
    info = expect(world.do(OpenGroup("1001", 1, leg)), LegInfo)
    assert info.media == (kept(30500, shared=False).media,)
    assert world.do(OpenGroup("1001", 1, leg)) == info, "asked twice, it is answered alike"
    assert world.do(OpenGroup("1001", 1, replace(leg, kept=()))) == info
    for name in ("a", "b"):
        assert add(world, name, kept(30600, shared=True), ice=True).rtp.port == 30600


def test_who_had_a_port_alone_does_not_become_the_one_all_share(world: World) -> None:
    world.broadcaster("video")
    assert add(world, "alone", kept(30700, shared=False)).rtp.port == 30700
    assert [add(world, name, kept(30600, shared=True)).rtp.port for name in ("a", "b")] == [30600, 30600]


@pytest.mark.parametrize("port", [30601, 40000, 80])
def test_a_port_that_is_not_ours_to_give_is_another_with_other_credentials(world: World, port: int) -> None:
    world.broadcaster("video")
    place = add(world, "a", kept(port, shared=True, peer=Address(HOST, 9999)), ice=True)
    assert 30000 <= place.rtp.port <= 30999 and place.rtp.port % 2 == 0 and place.rtp.port != port
    assert place.ufrag not in ("", "ufrg")
    assert not world.relay.groups.by_id["1001"].legs["a"].places(), "it must show itself there first"


def test_media_flows_at_once_to_where_the_phone_was(world: World) -> None:
    sources, _ = world.broadcaster("video")
    viewer = world.peer("video")
    media = replace(viewer.spec(sends=True, ice=True), rtp=Address(HOST, 1))
    wish = kept(30600, shared=True, peer=viewer.address)
    world.do(AddViewer("1001", 1, LegSpec("v", "2", HOST, (media,), (wish,))))
    sources["video"].send(b"\x65picture")
    world.step()
    assert viewer.packets(), "without a check, which was made before the relay died"


def test_where_a_phone_is_is_told_once_a_second_at_most(world: World) -> None:
    sources, _ = world.broadcaster("video")
    sources["video"].send(b"\x65picture")
    world.step()
    world.pass_time(3)
    told = [event for event in world.events if isinstance(event, LegPlaced)]
    assert [place.rtp for event in told for place in event.places] == [sources["video"].peer.address]


def test_credentials_of_our_offer_stay_when_its_answer_has_new_ones(world: World) -> None:
    world.broadcaster("video")
    media = replace(world.peer("video").spec(sends=True, ice=True), remote_ufrag="one")
    spec = LegSpec("v", "2", HOST, (media,))
    place = expect(world.do(AddViewer("1001", 1, spec)), LegInfo).media[0]
    answered = replace(spec, media=(replace(media, remote_ufrag="two"),))
    ours = expect(world.do(UpdateLeg("1001", 1, replace(answered, kept=(KeptMedia(place),)))), LegInfo)
    assert ours.media == (place,)
    theirs = replace(spec, media=(replace(media, remote_ufrag="three"),))
    assert expect(world.do(UpdateLeg("1001", 1, theirs)), LegInfo).media[0].ufrag != place.ufrag


@pytest.mark.parametrize("peer", [Address("nowhere", 4000), Address(HOST, 0), Address(HOST, 70_000)])
def test_a_place_that_is_none_is_refused(world: World, peer: Address) -> None:
    world.broadcaster("video")
    with pytest.raises(ControlError, match="no address a peer can have been at"):
        add(world, "a", kept(30600, shared=True, peer=peer))
