"""The conference view of a broadcast (RFC 4575): its roster for the broadcaster, how many there are for its viewers.

What a subscription shows is always the difference between the group as it is and what was told last, so nothing can
be missed: not by a lost event, nor by a restart.
"""

import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Literal

from protocols.conference_info import (
    CONTENT_TYPE,
    Conference,
    Endpoint,
    User,
    deleted,
    document,
    readable,
)
from protocols.sip.errors import SipParseError
from protocols.sip.headers import NameAddr
from protocols.sip.uri import SipUri
from provisioning.config.events import EventsConfig
from sip_app.broadcast.group import Broadcasting, LiveGroup, Viewer
from sip_app.calls.incoming import Caller, Dialog, Rejected
from sip_app.metrics import limited
from sip_app.subscriptions import Notifier

ALIVE = ("live", "lost")
NOBODY = "anonymous.invalid"
"""The host of whoever has no address (RFC 3323)."""


class ConferencePackage:
    """`Event: conference` on a broadcaster's number; an observer of broadcasts."""

    name = "conference"
    content_type = CONTENT_TYPE

    def __init__(self, service: Broadcasting, notifier: Notifier) -> None:
        self._service, self._notifier = service, notifier
        self._users: dict[LiveGroup, Mapping[str, User]] = {}

    async def open(self, resource: str, watcher: Caller) -> "ConferenceView":
        """For the broadcaster and its viewers; others as `events.conference_watchers` says. Raises `Rejected`."""
        group = self._service.open.get(resource)
        if group is None or group.state not in ALIVE:
            if await self._service.ports.credentials.find(resource) is None:
                raise Rejected(404)
            raise Rejected(480, "Not Live")
        broadcaster = watcher.aor == resource
        everybody = self.settings.conference_watchers == "subscribers"
        if not (broadcaster or everybody or _watches(group, watcher.key)):
            raise Rejected(403, "Not A Participant")
        return ConferenceView(self, group, watcher.key, roster=broadcaster)

    @property
    def settings(self) -> EventsConfig:
        """The settings in force."""
        return self._notifier.settings

    def users(self, group: LiveGroup) -> Mapping[str, User]:
        """All who take part, by entity, the broadcaster first; made anew only when somebody came or went."""
        known = self._users.get(group)
        if known is None:
            known = _users(group)
            if group.state in ALIVE:
                self._users[group] = known
        return known

    def maximum(self, group: LiveGroup) -> int:
        """How many may take part, the broadcaster included."""
        return group.policy.max_viewers + 1

    def _changed(self, group: LiveGroup) -> None:
        self._users.pop(group, None)
        self._notifier.changed(self.name, group.channel)

    # Observing broadcasts

    def broadcast_live(self, group: LiveGroup) -> None:
        """Nobody can follow it yet."""

    def broadcast_lost(self, group: LiveGroup) -> None:
        """The broadcaster is told as disconnected to whoever else has its number's roster open."""
        self._changed(group)

    def broadcast_back(self, group: LiveGroup) -> None:
        """Connected again, in another call."""
        self._changed(group)

    def broadcast_closing(self, group: LiveGroup) -> None:
        """There is no conference any more: every subscription ends."""
        self._users.pop(group, None)
        for subscription in self._notifier.following(self.name, group.channel):
            subscription.end("noresource")

    def broadcast_ended(self, group: LiveGroup, reason: str) -> None:
        """All was told when the end began."""
        self._users.pop(group, None)

    def viewer_joined(self, group: LiveGroup, viewer: Viewer) -> None:
        """One more."""
        self._changed(group)

    def viewer_left(self, group: LiveGroup, viewer: Viewer, cause: str) -> None:
        """One less, who may no longer follow the conference either, unless another call of its number still watches."""
        if group.over():
            return
        self._changed(group)
        if self.settings.conference_watchers == "participants" and not _watches(group, viewer.caller):
            for subscription in self._notifier.following(self.name, group.channel):
                if subscription.watcher.key == viewer.caller and subscription.watcher.aor != group.channel:
                    subscription.end("rejected")


class ConferenceView:
    """What one subscription to a conference shows, and what it has told so far."""

    def __init__(self, package: ConferencePackage, group: LiveGroup, watcher: str, *, roster: bool) -> None:
        self.more = False
        self._package, self._group, self._watcher, self._roster = package, group, watcher, roster
        self._version = 0
        self._told: dict[str, User] = {}
        self._count = 0

    def full(self) -> bytes:
        """The whole state, or its beginning."""
        self._version += 1
        if self._group.over():
            return deleted(f"sip:{self._group.channel}", self._version)
        self._told.clear()
        return self._document("full", self._listed(), ())

    def changes(self) -> bytes | None:
        """Who came, changed or left since, as far as there is room."""
        listed = self._listed()
        users = {entity: user for entity, user in listed.items() if self._told.get(entity) != user}
        gone = tuple([entity for entity in self._told if entity not in listed])
        if not users and not gone and self._count == len(self._package.users(self._group)):
            return None
        self._version += 1
        return self._document("partial", users, gone)

    def close(self) -> None:
        """Nothing is held for it."""

    def _listed(self) -> Mapping[str, User]:
        users = self._package.users(self._group)
        if not self._roster:
            return {entity: user for entity, user in users.items() if user.role == "broadcaster"}
        if len(users) <= self._package.settings.roster_limit + 1:
            return users
        # Who was named stays named; whoever came past the limit takes the place of one who left.
        named = {entity: user for entity, user in users.items() if entity in self._told or user.role == "broadcaster"}
        for entity, user in users.items():
            if len(named) > self._package.settings.roster_limit:
                break
            named.setdefault(entity, user)
        return named

    def _document(self, state: Literal["full", "partial"], users: Mapping[str, User], gone: tuple[str, ...]) -> bytes:
        channel = self._group.channel
        self._count = len(self._package.users(self._group))
        maximum = self._package.maximum(self._group)
        focus = _focus(self._group, self._watcher)
        conference = Conference(f"sip:{channel}", f"{self._group.number} live", self._count, maximum, focus)
        part = document(conference, self._version, state, users, gone, budget=self._package.settings.document_bytes)
        self._told |= {user.entity: user for user in part.told}
        for entity in part.gone:
            del self._told[entity]
        self.more = len(part.told) + len(part.gone) < len(users) + len(gone)
        if self._roster and not self.more and self._count > self._package.settings.roster_limit + 1:
            limited("events.roster_limit")
        return part.body


def _focus(group: LiveGroup, caller: str) -> tuple[str, ...]:
    """The conference URI as the watcher's call shows it (Contact with `isfocus`), else as the broadcaster's does."""
    theirs = [viewer.dialog for viewer in group.viewers.values() if viewer.caller == caller]
    dialog = theirs[0] if theirs else group.source
    return (str(NameAddr.parse(dialog.state.local_target).uri),) if dialog is not None else ()


def _watches(group: LiveGroup, caller: str) -> bool:
    return any(viewer.caller == caller for viewer in group.viewers.values())


def _users(group: LiveGroup) -> dict[str, User]:
    there = group.state == "live" and group.source is not None
    source = Endpoint(
        f"sip:{group.channel};call={_call(group.leg_id)}",
        _written(group.opened_at),
        "connected" if there else "disconnected",
    )
    users = {f"sip:{group.channel}": User(f"sip:{group.channel}", group.number, "broadcaster", (source,))}
    for viewer in group.viewers.values():
        _, at, theirs = viewer.caller.partition("@")
        # Strangers are counted by their host, which is nobody's business: each call of theirs is somebody else here.
        named = SipUri(theirs, viewer.number) if at else SipUri(NOBODY, f"guest-{_call(viewer.leg_id)}")
        entity = str(named)
        call = Endpoint(f"{entity};call={_call(viewer.leg_id)}", _written(viewer.since))
        known = users.get(entity)
        calls = (*known.endpoints, call) if known is not None else (call,)
        users[entity] = User(entity, _name(viewer.dialog, viewer.number) if at else "Guest", "viewer", calls)
    return users


def _written(at: float) -> str:
    """Unix seconds as RFC 3339 writes them."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _call(leg_id: str) -> str:
    """What tells one call of a user from another; the leg's own id is nobody's business."""
    return sha256(leg_id.encode()).hexdigest()[:8]


def _name(dialog: Dialog, number: str) -> str:
    """How a viewer's phone names its user (anybody may write anything there), else its number."""
    try:
        return readable(NameAddr.parse(dialog.state.remote_uri).display) or number
    except SipParseError:
        return number
