"""What the relays granted us: the legs of every open group as they were asked for and answered.

A relay that dies takes this along; who has it can ask for the same again (`reopening`). It is not stored: a server
that was restarted learns it of new legs only.
"""

from dataclasses import dataclass, replace

from protocols.control import (
    AddViewer,
    CloseGroup,
    GroupCommand,
    KeptMedia,
    LegInfo,
    LegPlace,
    LegPlaced,
    LegSpec,
    OpenGroup,
    RemoveLeg,
    ReplaceSource,
    UpdateLeg,
)

GroupKey = tuple[str, int]
"""Group id and epoch."""


@dataclass(slots=True)
class HeldLeg:
    """One leg: as it was last asked for, what the relay gave, and where its phone was seen."""

    spec: LegSpec
    info: LegInfo
    source: bool
    places: tuple[LegPlace, ...] = ()

    @property
    def again(self) -> LegSpec:
        """The leg to ask for, so that its phone need not be told of anything."""
        places = {place.kind: place for place in self.places}
        return replace(self.spec, kept=tuple(KeptMedia(media, places.get(media.kind)) for media in self.info.media))


class HeldLegs:
    """The legs of all groups. Announcements are left out: a caller who hears nothing dials again."""

    def __init__(self) -> None:
        self._groups: dict[GroupKey, dict[str, HeldLeg]] = {}

    def of(self, group: GroupKey) -> dict[str, HeldLeg]:
        """The group's legs by id, in the order they came."""
        return dict(self._groups.get(group, {}))

    def get(self, group: GroupKey, leg_id: str) -> HeldLeg | None:
        """One leg, None once its removal was asked for."""
        return self._groups.get(group, {}).get(leg_id)

    def asked(self, command: GroupCommand) -> None:
        """Something is about to be asked: what is to go counts as gone, whether the relay can be told or not."""
        group = command.group_id, command.epoch
        match command:
            case RemoveLeg(leg_id=leg_id):
                self._groups.get(group, {}).pop(leg_id, None)
            case CloseGroup():
                self.forget(group)

    def granted(self, command: GroupCommand, info: LegInfo) -> None:
        """A leg was answered for."""
        group = command.group_id, command.epoch
        match command:
            case OpenGroup(leg=leg) | ReplaceSource(leg=leg):
                legs = self._groups.setdefault(group, {})
                for other in [name for name, held in legs.items() if held.source and name != leg.leg_id]:
                    del legs[other]  # the relay has taken it out
                self._put(legs, leg, info, source=True)
            case AddViewer(leg=leg):
                self._put(self._groups.get(group, {}), leg, info, source=False)
            case UpdateLeg(leg=leg) if (held := self.get(group, leg.leg_id)) is not None:
                self._put(self._groups[group], leg, info, source=held.source)

    def placed(self, event: LegPlaced) -> None:
        """Where a leg's phone is."""
        held = self.get((event.group_id, event.epoch), event.leg_id)
        if held is not None:
            held.places = event.places

    def forget(self, group: GroupKey) -> None:
        """The group is over, or another server's."""
        self._groups.pop(group, None)

    def _put(self, legs: dict[str, HeldLeg], spec: LegSpec, info: LegInfo, *, source: bool) -> None:
        before = legs.get(spec.leg_id)
        places = before.places if before is not None and before.info == info else ()
        legs[spec.leg_id] = HeldLeg(replace(spec, kept=()), info, source, places)
