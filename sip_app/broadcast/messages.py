"""Text within a broadcast (MESSAGE, RFC 3428): viewers ask, the broadcaster answers all.

A question goes to the broadcaster's phones as a message from that viewer, so that any phone shows who asks; an answer
goes into each viewer's dialog, one after another. Both are accepted (202) before they arrive: who hears what is no
business of the sender. The text is passed on cleaned, as plain text and nothing else.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import structlog

from protocols.net import Flow
from protocols.records import Binding
from protocols.sip.message import Headers, Request
from protocols.text_message import CONTENT_TYPE, TextError, charset, clean
from provisioning.config import Config
from sip_app.access.identity import ANONYMOUS
from sip_app.bounds import RateLimit
from sip_app.broadcast.group import Broadcasting, LiveGroup, Viewer
from sip_app.calls.incoming import Caller, Dialog, Rejected
from sip_app.element.endpoint import SipEndpoint
from sip_app.metrics import TEXTS, limited
from sip_app.pace import Pace

SENT_AS = f"{CONTENT_TYPE};charset=UTF-8"
ACCEPT = (("Accept", CONTENT_TYPE),)

log = structlog.get_logger("sip_app.broadcast.messages")


class Phones(Protocol):
    """Where the registered phones of a number are known, and how they are reached."""

    async def bindings(self, aor: str) -> Sequence[Binding]:
        """The phones registered for `aor`."""
        ...

    def flow_of(self, binding: Binding) -> Flow:
        """The flow the binding was made over."""
        ...


class Messages:
    """Takes the messages of broadcasts, in their dialogs and outside, and brings them to whom they are meant for."""

    def __init__(self, service: Broadcasting, endpoint: SipEndpoint, phones: Phones, config: Config) -> None:
        self._service, self._endpoint, self._phones = service, endpoint, phones
        self._waiting: Counter[LiveGroup] = Counter()
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Live by these settings from now on."""
        self._settings = config.messages
        self._pace = Pace(config.messages.rate)
        self._allowance = RateLimit.a_minute(config.messages.per_minute)

    def outside(self, request: Request, caller: Caller, dialled: str, *, service_number: bool = False) -> bool:
        """A MESSAGE outside dialogs to `dialled`: taken (True) if it is of a broadcast, else somebody's own affair.

        That is: from the broadcaster to its own or the service number, or from a viewer to the broadcaster's number.
        Raises `Rejected`.
        """
        group = self._service.open.get(caller.aor if service_number else dialled)
        if group is None or group.state not in ("live", "lost"):
            return False
        if caller.aor == group.channel:
            self.answer(group, request)
            return True
        viewer = next((viewer for viewer in group.viewers.values() if viewer.caller == caller.key), None)
        if viewer is None:
            return False
        self.question(group, viewer, request)
        return True

    def question(self, group: LiveGroup, viewer: Viewer, request: Request) -> None:
        """A viewer's message: for the broadcaster's phones. Raises `Rejected`."""
        text = self._read(request, viewer.caller)
        self._expect(group, 1)
        TEXTS.labels("question").inc()
        log.info("message.question", channel=group.channel, viewer=viewer.number, octets=len(text))
        self._service.spawn(self._to_phones(group, viewer, text))

    def answer(self, group: LiveGroup, request: Request) -> None:
        """The broadcaster's message: for all viewers. Raises `Rejected`."""
        text = self._read(request, group.channel)
        viewers = list(group.viewers.values())
        self._expect(group, len(viewers))
        TEXTS.labels("answer").inc()
        log.info("message.answer", channel=group.channel, viewers=len(viewers), octets=len(text))
        self._service.spawn(self._to_viewers(group, viewers, text))

    def _read(self, request: Request, account: str) -> bytes:
        if "content-encoding" in request.headers:
            raise Rejected(415, headers=(("Accept-Encoding", "identity"),))
        if request.content_type != CONTENT_TYPE:
            raise Rejected(415, headers=ACCEPT)
        if charset(request.headers.get("content-type") or "") not in ("utf-8", "us-ascii"):
            raise Rejected(415, "UTF-8 Only", ACCEPT)
        if len(request.body) > self._settings.max_bytes:
            limited("messages.max_bytes")
            raise Rejected(413)
        try:
            text = clean(request.body)
        except TextError as error:
            raise Rejected(415, f"Unreadable Text ({error})", ACCEPT) from None
        if wait := self._allowance.wait(account, self._endpoint.loop.time()):
            limited("messages.per_minute")
            raise Rejected(480, "Too Many Messages", (("Retry-After", str(int(wait) + 1)),))
        return text.encode()

    def _expect(self, group: LiveGroup, deliveries: int) -> None:
        """So many more are to be made within a broadcast. Raises `Rejected` 480 while too many wait."""
        waiting = self._waiting[group]
        if waiting and waiting + deliveries > self._settings.max_waiting:
            limited("messages.max_waiting")
            retry = str(1 + waiting // self._settings.rate)
            raise Rejected(480, "Too Many Messages In This Broadcast", (("Retry-After", retry),))
        self._waiting[group] += deliveries

    def _done(self, group: LiveGroup, deliveries: int) -> None:
        self._waiting[group] -= deliveries
        if not self._waiting[group]:
            del self._waiting[group]

    async def _to_phones(self, group: LiveGroup, viewer: Viewer, text: bytes) -> None:
        try:
            # Whoever proved who it is was checked against its From; nobody may ask in another's name.
            sender = viewer.dialog.state.remote_uri if "@" in viewer.caller else f"<sip:{ANONYMOUS}>"
            bindings = await self._phones.bindings(group.channel)
            for binding in bindings:
                await self._pace.turn()
                request = _outside_dialogs(binding, sender, group.channel, text)
                self._service.spawn(self._send(request, self._phones.flow_of(binding)))
            if not bindings and group.source is not None:  # live without being registered: its call is the only way
                await group.source.ask("MESSAGE", text, SENT_AS)
        finally:
            self._done(group, 1)

    async def _send(self, request: Request, flow: Flow) -> None:
        if self._endpoint.transports.alive(flow):
            response = await self._endpoint.request(request, flow)
            log.debug("message.delivered", status=response.status)

    async def _to_viewers(self, group: LiveGroup, viewers: Sequence[Viewer], text: bytes) -> None:
        try:
            for viewer in viewers:
                await self._pace.turn()
                if group.viewers.get(viewer.leg_id) is viewer:
                    self._service.spawn(_in_dialog(viewer.dialog, text))
        finally:
            self._done(group, len(viewers))


async def _in_dialog(dialog: Dialog, text: bytes) -> None:
    await dialog.acked.wait()
    if not dialog.ended.is_set():
        await dialog.ask("MESSAGE", text, SENT_AS)


def _outside_dialogs(binding: Binding, sender: str, channel: str, text: bytes) -> Request:
    """A MESSAGE to one phone, from `sender` (a From value without tag)."""
    lines = [("Route", hop) for hop in binding.path]
    lines += [
        ("Max-Forwards", "70"),
        ("From", f"{sender};tag={secrets.token_hex(8)}"),
        ("To", f"<sip:{channel}>"),
        ("Call-ID", secrets.token_hex(16)),
        ("CSeq", "1 MESSAGE"),
        ("Content-Type", SENT_AS),
    ]
    return Request("MESSAGE", binding.contact, Headers(lines), text)
