"""Who is live, for whoever follows a number: `presence` for buddy lists (RFC 3856), `dialog` for lamp keys (RFC 4235).

Open is a number with a registered phone or a broadcast; the lamp is lit for as long as a call to the number would be
taken into its broadcast. Registrations tell of themselves, but for those that run out: a timer looks after these.
What other servers on our store know is looked up every few seconds.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from protocols.presence_info import DIALOG_INFO, PIDF, CallIds, dialog_info, presence
from protocols.records import Binding
from sip_app.broadcast.group import Broadcasting, LiveGroup, Viewer
from sip_app.calls.incoming import Caller, Rejected
from sip_app.subscriptions import Notifier, View

PRESENCE: Literal["presence"] = "presence"
DIALOG: Literal["dialog"] = "dialog"
LIVE_STATES = ("live", "lost")
LOOKED_AT_ONCE = 100
"""Numbers whose registrations with other servers are looked up in one go; the others follow in turn."""


class Bindings(Protocol):
    """Where the registered phones of a number are known."""

    async def bindings(self, aor: str) -> Sequence[Binding]:
        """The phones registered for `aor`."""
        ...


class Liveness:
    """Tells the followers of a number when its broadcast begins and ends, and when its phones come and go."""

    def __init__(self, service: Broadcasting, notifier: Notifier, bindings: Bindings) -> None:
        self.service, self.notifier = service, notifier
        self._bindings = bindings
        self._views: Counter[str] = Counter()
        """How many look at the registration of a number."""
        self._registered: dict[str, bool] = {}
        self._run_out: dict[str, asyncio.TimerHandle] = {}
        self._elsewhere: Mapping[str, int] = {}
        self._turn = 0
        service.looking.append(self.look_around)

    def epoch(self, aor: str) -> int | None:
        """Of the broadcast a call to this number would be taken into, on whichever server."""
        group = self.live(aor)
        return group.epoch if group is not None else self._elsewhere.get(aor)

    def live(self, aor: str) -> LiveGroup | None:
        """The same broadcast if it is on this server."""
        group = self.service.open.get(aor)
        return group if group is not None and group.state in LIVE_STATES else None

    def registered(self, aor: str) -> bool:
        """Whether a followed number has a phone, as far as known."""
        return self._registered.get(aor, False)

    async def follow(self, aor: str) -> None:
        """Know from now on which phones a number has, until `release`."""
        self._views[aor] += 1
        try:
            await self.look(aor)
        except BaseException:
            self.release(aor)
            raise

    def release(self, aor: str) -> None:
        """One less who wants to know."""
        self._views[aor] -= 1
        if not self._views[aor]:
            del self._views[aor]
            self._registered.pop(aor, None)
            if (timer := self._run_out.pop(aor, None)) is not None:
                timer.cancel()

    async def look(self, aor: str) -> None:
        """See which phones a followed number has now, and when that will have to be looked at again."""
        bindings = await self._bindings.bindings(aor)
        if aor not in self._views:
            return
        self._registered[aor] = bool(bindings)
        if (timer := self._run_out.pop(aor, None)) is not None:
            timer.cancel()
        if bindings:
            left = max(binding.expires_at for binding in bindings) - time.time()
            again = asyncio.get_running_loop().call_later(max(0.0, left) + 0.1, self.registration_changed, aor)
            self._run_out[aor] = again

    def registration_changed(self, aor: str) -> None:
        """A phone of this number came, went or stays for another time, or its time ran out."""
        if aor in self._views:
            self.notifier.endpoint.spawn(self._tell_registration(aor))

    async def look_around(self) -> None:
        """See what other servers on our store know. Raises OSError."""
        before, self._elsewhere = self._elsewhere, await self.service.ports.broadcasts.elsewhere(self.service.as_id)
        for aor in {aor for aor, _ in before.items() ^ self._elsewhere.items()}:
            for package in (PRESENCE, DIALOG):
                self.notifier.changed(package, aor)
        followed = self.notifier.followed(PRESENCE)
        for aor in followed[self._turn : self._turn + LOOKED_AT_ONCE]:
            await self._tell_registration(aor)
        self._turn = self._turn + LOOKED_AT_ONCE if self._turn + LOOKED_AT_ONCE < len(followed) else 0

    async def _tell_registration(self, aor: str) -> None:
        await self.look(aor)
        self.notifier.changed(PRESENCE, aor)

    def _changed(self, group: LiveGroup) -> None:
        for package in (PRESENCE, DIALOG):
            self.notifier.changed(package, group.channel)

    # Observing broadcasts

    def broadcast_live(self, group: LiveGroup) -> None:
        """Live."""
        self._changed(group)

    def broadcast_lost(self, group: LiveGroup) -> None:
        """Still live for whoever calls."""

    def broadcast_back(self, group: LiveGroup) -> None:
        """Live as before, in another call: the broadcaster's own lamp shows which."""
        self._changed(group)

    def broadcast_closing(self, group: LiveGroup) -> None:
        """No longer live."""
        self._changed(group)

    def broadcast_ended(self, group: LiveGroup, reason: str) -> None:
        """All was told when the end began."""

    def viewer_joined(self, group: LiveGroup, viewer: Viewer) -> None:
        """Of no concern here."""

    def viewer_left(self, group: LiveGroup, viewer: Viewer, cause: str) -> None:
        """Of no concern here."""


class LivePackage:
    """`Event: presence` or `Event: dialog` on any number."""

    def __init__(self, name: Literal["presence", "dialog"], liveness: Liveness) -> None:
        self.name: str = name
        self.content_type = PIDF if name == PRESENCE else DIALOG_INFO
        self._liveness = liveness

    async def open(self, resource: str, watcher: Caller) -> View:
        """Raises `Rejected`: 404 for nobody's number, 403 for one that is not the watcher's where only that is let."""
        own = watcher.aor == resource
        if self._liveness.notifier.settings.presence_watchers == "own" and not own:
            raise Rejected(403, "Not Your Number")
        if await self._liveness.service.ports.credentials.find(resource) is None:
            raise Rejected(404)
        if self.name == DIALOG:
            return LampView(self._liveness, resource, own=own)
        await self._liveness.follow(resource)
        return PresenceView(self._liveness, resource)


class PresenceView:
    """What one subscription to presence shows: open or closed, live or not."""

    more = False

    def __init__(self, liveness: Liveness, aor: str) -> None:
        self._liveness, self._aor = liveness, aor
        self._told = (False, False)

    def _now(self) -> tuple[bool, bool]:
        return self._liveness.registered(self._aor), self._liveness.epoch(self._aor) is not None

    def close(self) -> None:
        """Its number may be of no concern any more."""
        self._liveness.release(self._aor)

    def full(self) -> bytes:
        """The state as it is."""
        self._told = registered, live = self._now()
        return presence(f"sip:{self._aor}", registered=registered, live=live)

    def changes(self) -> bytes | None:
        """The state, if it is another than the one told last."""
        return None if self._now() == self._told else self.full()


class LampView:
    """What one lamp key shows: the broadcast as a dialog, whose identifiers only its own subscriber learns."""

    more = False

    def __init__(self, liveness: Liveness, aor: str, *, own: bool) -> None:
        self._liveness, self._aor, self._own = liveness, aor, own
        self._version = -1
        self._dialog_id = "none"
        self._told: tuple[int, CallIds | None] | None = None

    def _now(self) -> tuple[int, CallIds | None] | None:
        group, epoch = self._liveness.live(self._aor), self._liveness.epoch(self._aor)
        return None if epoch is None else (epoch, _ids(group) if self._own and group is not None else None)

    def close(self) -> None:
        """Nothing is held for it."""

    def full(self) -> bytes:
        """The state as it is."""
        self._told = now = self._now()
        self._version += 1
        if now is not None:
            self._dialog_id = f"live-{now[0]}"
        call = None if now is None else now[1]
        return dialog_info(f"sip:{self._aor}", self._version, self._dialog_id, live=now is not None, call=call)

    def changes(self) -> bytes | None:
        """The state, if it is another than the one told last."""
        return None if self._now() == self._told else self.full()


def _ids(group: LiveGroup) -> CallIds | None:
    """The broadcaster's call as its phone knows it."""
    if group.source is None:
        return None
    state = group.source.state
    return CallIds(state.call_id, state.remote_tag, state.local_tag)
