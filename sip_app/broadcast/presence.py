"""Who is live, for whoever follows a number: `presence` for buddy lists (RFC 3856), `dialog` for lamp keys (RFC 4235).

Open is a number with a registered phone or a broadcast; the lamp is lit for as long as a call to the number would be
taken into its broadcast. Registrations tell of themselves, but for those that run out: a timer looks after these.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Literal, Protocol

from protocols.presence_info import DIALOG_INFO, PIDF, CallIds, dialog_info, presence
from protocols.records import Binding
from sip_app.broadcast.group import Broadcasting, LiveGroup, Viewer
from sip_app.calls import Caller, Rejected
from sip_app.subscriptions import Notifier, View

PRESENCE: Literal["presence"] = "presence"
DIALOG: Literal["dialog"] = "dialog"
LIVE_STATES = ("live", "lost")


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
        self._registered: dict[str, bool] = {}
        self._run_out: dict[str, asyncio.TimerHandle] = {}

    def live(self, aor: str) -> LiveGroup | None:
        """The broadcast a call to this number would be taken into, if there is one."""
        group = self.service.open.get(aor)
        return group if group is not None and group.state in LIVE_STATES else None

    def registered(self, aor: str) -> bool:
        """Whether a followed number has a phone, as far as known."""
        return self._registered.get(aor, False)

    async def look(self, aor: str) -> None:
        """See which phones a number has now, and when that will have to be looked at again."""
        bindings = await self._bindings.bindings(aor)
        self._registered[aor] = bool(bindings)
        if (timer := self._run_out.pop(aor, None)) is not None:
            timer.cancel()
        if bindings:
            left = max(binding.expires_at for binding in bindings) - time.time()
            again = asyncio.get_running_loop().call_later(max(0.0, left) + 0.1, self.registration_changed, aor)
            self._run_out[aor] = again

    def registration_changed(self, aor: str) -> None:
        """A phone of this number came, went or stays for another time, or its time ran out."""
        if self.notifier.following(PRESENCE, aor):
            self.notifier.endpoint.spawn(self._tell_registration(aor))
        else:
            self._registered.pop(aor, None)
            if (timer := self._run_out.pop(aor, None)) is not None:
                timer.cancel()

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
        await self._liveness.look(resource)
        return PresenceView(self._liveness, resource)


class PresenceView:
    """What one subscription to presence shows: open or closed, live or not."""

    more = False

    def __init__(self, liveness: Liveness, aor: str) -> None:
        self._liveness, self._aor = liveness, aor
        self._told = (False, False)

    def _now(self) -> tuple[bool, bool]:
        return self._liveness.registered(self._aor), self._liveness.live(self._aor) is not None

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
        group = self._liveness.live(self._aor)
        return None if group is None else (group.epoch, _ids(group) if self._own else None)

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
