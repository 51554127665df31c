"""The notifier of RFC 6665: subscriptions to event packages, each a dialog of its own.

Subscriptions are soft state, kept in memory only: after a restart the watcher's next refresh gets 481, and it
subscribes anew. A subscription has one NOTIFY outstanding at most, and one an interval; what changes meanwhile is told
by the next. One that fails ends the subscription (section 4.2.2), unless the answer says when to try again.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import structlog

from protocols.net import Flow
from protocols.sip.dialog import DialogId, DialogState, uas_dialog
from protocols.sip.errors import SipParseError
from protocols.sip.events import ServerTransaction
from protocols.sip.message import Request, Response, make_response
from protocols.sip.subscription import Event, Reason, accepts, active, terminated
from provisioning.config import Config
from sip_app.calls.capabilities import not_allowed
from sip_app.calls.dialogs import new_tag
from sip_app.calls.incoming import Caller, Rejected
from sip_app.element.endpoint import SipEndpoint
from sip_app.metrics import NOTIFICATIONS, SUBSCRIPTIONS, limited
from sip_app.pace import Pace

STOP_WITHIN = 1.0
"""Seconds in which all watchers are told that the server stops."""
LONGEST_RETRY = 300
"""Seconds: a watcher that asks for more patience (Retry-After) than this loses its subscription."""

log = structlog.get_logger("sip_app.subscriptions")


class View(Protocol):
    """What one subscription shows. It remembers what it has told, and numbers its documents itself."""

    @property
    def more(self) -> bool:
        """True if the last document had no room for all there is to tell."""
        ...

    def full(self) -> bytes:
        """The whole state."""
        ...

    def changes(self) -> bytes | None:
        """What changed since the last document, or None."""
        ...

    def close(self) -> None:
        """The last document was told."""
        ...


class Package(Protocol):
    """An event package (section 5). `name` is its token, `content_type` the only type of its documents."""

    name: str
    content_type: str

    async def open(self, resource: str, watcher: Caller) -> View:
        """The view of an address of record for this watcher. Raises `Rejected` if it may have none."""
        ...


class Subscription:
    """One watcher's subscription, from its SUBSCRIBE to the answer to the last NOTIFY."""

    def __init__(
        self, notifier: "Notifier", state: DialogState, package: Package, event: Event, resource: str, watcher: Caller
    ) -> None:
        self.state, self.package, self.event = state, package, event
        self.resource, self.watcher = resource, watcher
        self.view: View
        self._notifier = notifier
        self._loop = notifier.endpoint.loop
        self._expires_at = self._not_before = self._loop.time()
        self._expiry: asyncio.TimerHandle | None = None
        self.sending: asyncio.Task[None] | None = None
        self._due = self._full = False
        self._reason: Reason | None = None
        self._ending = asyncio.Event()

    @property
    def over(self) -> bool:
        """True from the moment its end has begun."""
        return self._ending.is_set()

    def last_for(self, seconds: int) -> None:
        """Let it run this long from now, and tell the whole state; 0 ends it with the state as its last word."""
        if self._expiry is not None:
            self._expiry.cancel()
        if not seconds:
            self.end("timeout")
            return
        self._expires_at = self._loop.time() + seconds
        self._expiry = self._loop.call_at(self._expires_at, self.end, "timeout")
        self._full = True
        self.changed()

    def changed(self) -> None:
        """There may be something to tell."""
        self._due = True
        if self.sending is None:
            self.sending = self._notifier.endpoint.spawn(self._send())

    def end(self, reason: Reason) -> None:
        """Tell the watcher that it is over and why, as soon as its last NOTIFY is answered. Idempotent."""
        if self.over:
            return
        self._reason = reason
        self._ending.set()
        if self._expiry is not None:
            self._expiry.cancel()
        self._notifier.close(self)
        self.changed()

    async def _send(self) -> None:
        try:
            while self._due:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), self._not_before - self._loop.time())
                await self._notifier.pace.turn()
                self._due = False
                if not await self._notify():
                    break
        finally:
            self.sending = None
            if self.over:
                self._notifier.forget(self)

    async def _notify(self) -> bool:
        """One NOTIFY, if there is anything to tell; False when the watcher is to get no more."""
        reason, full, self._full = self._reason, self._full or self.over, False
        body: bytes | None = None
        if reason not in ("deactivated", "rejected"):
            body = self.view.full() if full else self.view.changes()
            if body is None and reason is None:
                return True
        left = max(0, round(self._expires_at - self._loop.time()))
        lines = (
            ("Event", str(self.event)),
            ("Subscription-State", active(left) if reason is None else terminated(reason)),
        )
        kind = None if body is None else self.package.content_type
        self.state, request = self.state.request("NOTIFY", headers=lines, body=body or b"", content_type=kind)
        self._not_before = self._loop.time() + self._notifier.settings.notify_interval
        NOTIFICATIONS.labels(self.package.name).inc()
        response = await self._notifier.endpoint.request(request, await self._notifier.endpoint.reach(self.state))
        if response.status < 300:
            self._due |= self.view.more and not self.over
            return True
        if (patience := _retry_after(response)) is not None and not self.over:
            self._not_before = max(self._not_before, self._loop.time() + patience)
            self._due, self._full = True, True
            return True
        log.info("subscription.failed", package=self.package.name, watcher=self.watcher.aor, status=response.status)
        self._reason, self._due = None, False
        self._ending.set()
        if self._expiry is not None:
            self._expiry.cancel()
        self._notifier.close(self)
        return False


class Notifier:
    """All subscriptions, by dialog and by what they follow. `packages` are the events served here, by name."""

    def __init__(self, endpoint: SipEndpoint, config: Config) -> None:
        self.endpoint = endpoint
        self.packages: dict[str, Package] = {}
        self.reconfigure(config)
        self._by_id: dict[DialogId, Subscription] = {}
        self._following: defaultdict[tuple[str, str], dict[Subscription, None]] = defaultdict(dict)
        self._held: set[Subscription] = set()
        self._by_account: Counter[str] = Counter()

    def reconfigure(self, config: Config) -> None:
        """Live by these settings from now on."""
        self.settings = config.events
        self.pace = Pace(config.events.notify_rate)

    @property
    def allow_events(self) -> tuple[tuple[str, str], ...]:
        """The Allow-Events header field, where anything can be subscribed to."""
        return (("Allow-Events", ", ".join(sorted(self.packages))),) if self.packages else ()

    def find(self, dialog_id: DialogId) -> Subscription | None:
        """The subscription whose dialog this is."""
        return self._by_id.get(dialog_id)

    def following(self, package: str, resource: str) -> list[Subscription]:
        """Who follows this state of this address of record."""
        return list(self._following.get((package, resource), ()))

    def followed(self, package: str) -> list[str]:
        """The addresses of record whose state of this package somebody follows."""
        return [resource for name, resource in self._following if name == package]

    def changed(self, package: str, resource: str) -> None:
        """A state has, or may have, changed."""
        for subscription in self.following(package, resource):
            subscription.changed()

    def event_of(self, request: Request) -> Event:
        """What a SUBSCRIBE is for. Raises `Rejected` 489 if it does not say."""
        try:
            return Event.parse(request.headers.get("event") or "")
        except SipParseError:
            raise self.bad_event() from None

    def bad_event(self) -> Rejected:
        """The refusal of an event package nobody here has."""
        return Rejected(489, headers=self.allow_events)

    async def subscribe(
        self, tx: ServerTransaction, request: Request, caller: Caller, resource: str, event: Event, flow: Flow
    ) -> None:
        """A SUBSCRIBE outside dialogs: answer it, and send the state. Raises `Rejected`."""
        package = self.packages[event.package]
        if not accepts(request.headers.values("accept"), package.content_type):
            raise Rejected(406, headers=(("Accept", package.content_type),))
        seconds = self._granted(request)
        if len(self._held) >= self.settings.max_subscriptions:
            limited("events.max_subscriptions")
            raise Rejected(503, "Too Many Subscriptions", (("Retry-After", "60"),))
        if self._by_account[caller.aor] >= self.settings.max_subscriptions_per_account:
            limited("events.max_subscriptions_per_account")
            raise Rejected(403, "Too Many Subscriptions")
        state = uas_dialog(request, new_tag(), self.endpoint.contact(flow), flow)
        subscription = Subscription(self, state, package, event, resource, caller)
        self._held.add(subscription)
        self._by_account[caller.aor] += 1
        try:
            subscription.view = await package.open(resource, caller)
        except BaseException:
            self._release(subscription)
            raise
        self._by_id[state.id] = subscription
        self._following[package.name, resource][subscription] = None
        SUBSCRIPTIONS.labels(package.name).inc()
        if seconds:
            log.debug("subscription.began", package=package.name, resource=resource, watcher=caller.aor)
        self._accept(tx, request, subscription, seconds)

    def refresh(self, tx: ServerTransaction, request: Request, subscription: Subscription, flow: Flow) -> None:
        """A request in a subscription's dialog, known to be from its watcher. Raises `Rejected`."""
        if request.method != "SUBSCRIBE":
            raise not_allowed(request.method, ("SUBSCRIBE",))
        if self.event_of(request) != subscription.event:
            raise Rejected(481, "Another Event")
        if not subscription.state.accepts(request):
            raise Rejected(500, "CSeq Out Of Order")
        seconds = self._granted(request)
        subscription.state = replace(subscription.state.received(request), flow=flow)
        self._accept(tx, request, subscription, seconds)

    def _accept(self, tx: ServerTransaction, request: Request, subscription: Subscription, seconds: int) -> None:
        state = subscription.state
        headers = (("Expires", str(seconds)), ("Contact", state.local_target), *self.allow_events)
        self.endpoint.respond(tx, make_response(request, 200, to_tag=state.local_tag, headers=headers))
        subscription.last_for(seconds)

    def _granted(self, request: Request) -> int:
        wished = request.expires
        if wished is None:
            return self.settings.max_expires
        if 0 < wished < self.settings.min_expires:
            limited("events.min_expires")
            raise Rejected(423, headers=(("Min-Expires", str(self.settings.min_expires)),))
        return min(wished, self.settings.max_expires)

    def close(self, subscription: Subscription) -> None:
        """It takes no more requests and follows nothing; a last NOTIFY may be on its way."""
        if self._by_id.pop(subscription.state.id, None) is None:
            return
        key = subscription.package.name, subscription.resource
        self._following[key].pop(subscription, None)
        if not self._following[key]:
            del self._following[key]
        SUBSCRIPTIONS.labels(subscription.package.name).dec()

    def forget(self, subscription: Subscription) -> None:
        """Nothing of it is left."""
        if subscription in self._held:
            self._release(subscription)
            subscription.view.close()

    def _release(self, subscription: Subscription) -> None:
        self._held.remove(subscription)
        self._by_account[subscription.watcher.aor] -= 1
        if not self._by_account[subscription.watcher.aor]:
            del self._by_account[subscription.watcher.aor]

    async def stop(self) -> None:
        """Tell every watcher to subscribe anew, within a bounded time."""
        for subscription in list(self._by_id.values()):
            subscription.end("deactivated")
        if telling := [subscription.sending for subscription in self._held if subscription.sending is not None]:
            await asyncio.wait(telling, timeout=STOP_WITHIN)

    @property
    def counts(self) -> Mapping[str, int]:
        """Subscriptions held for each account, those included whose last NOTIFY is not answered."""
        return self._by_account


def _retry_after(response: Response) -> float | None:
    value = (response.headers.get("retry-after") or "").partition(";")[0].partition("(")[0].strip()
    stated = float(value) if value.isascii() and value.isdigit() and len(value) < 6 else LONGEST_RETRY + 1
    return stated if stated <= LONGEST_RETRY else None
