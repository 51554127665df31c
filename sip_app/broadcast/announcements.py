"""Calls the server itself answers: the relay speaks recorded prompts to them and hears their keys.

The service says what is spoken and what keys mean; `media_relay.announcements` does the rest. Keys come as telephone
events in RTP (RFC 4733), told by the relay, or in INFO from phones that know only that.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog

from protocols.control import (
    ControlError,
    Digit,
    Done,
    Event,
    GroupClosed,
    LegInfo,
    LegLost,
    LegSpec,
    OpenAnnouncement,
    PlayPrompt,
    PromptEnded,
    StopPrompt,
    UpdateLeg,
)
from protocols.dtmf_relay import CONTENT_TYPES, key_of
from protocols.prompts import Prompt, language_of
from protocols.sdp import SessionDescription
from protocols.sip.message import Request
from sip_app.broadcast.group import Broadcasting, new_leg_id
from sip_app.broadcast.held_legs import GroupKey
from sip_app.broadcast.media import Plan, plan_announcement
from sip_app.broadcast.relay_link import RelayUnavailable
from sip_app.calls.capabilities import CALL_METHODS, not_allowed
from sip_app.calls.incoming import CallGone, Dialog, IncomingCall, Rejected

PREFIX = "announcement:"
"""How the relay's groups of announcements are named; no channel is."""
MAX_KEYS = 64
"""Keys that wait to be taken; more are forgotten."""
PATIENCE = 12.0
"""Seconds the relay's word that a prompt is over may take beyond its longest length: it waits 10 s for a latch."""
LONGEST_PROMPT = 6.0
UNHEARD = 'Q.850;cause=27;text="No media from you"'

_TOLD_VIEWERS: dict[tuple[int, str | None], Prompt] = {
    (403, None): "private",
    (480, None): "ended",
    (486, "Broadcast Is Full"): "full",
}
"""By status, and by phrase where others have the same."""

log = structlog.get_logger("sip_app.broadcast.announcements")
Replan = Callable[[bytes], Plan]


class Announcement:
    """One answered call that can be spoken to; handles its dialog."""

    def __init__(
        self, announcements: "Announcements", call: IncomingCall, plan: Plan, replan: Replan, session_id: int
    ) -> None:
        self.leg_id = new_leg_id()
        self.spec: LegSpec = plan.leg(self.leg_id, call.caller.number, call.caller.client_address.host)
        self.dialog: Dialog
        self.leg: LegInfo
        self.plan = plan
        self.version = 0
        """Of our SDP (o= line)."""
        self._owner = announcements
        self._service = announcements.service
        self._replan = replan
        self._session_id = session_id
        default = self._service.config.announcements.language
        self._language = language_of(call.request.headers.get("Accept-Language") or "", default)
        self._keys: asyncio.Queue[str] = asyncio.Queue(MAX_KEYS)
        self._plays: dict[int, asyncio.Future[None]] = {}
        self._count = 0
        self.unheard = False
        """True once the relay found nobody at its address: what is still to be spoken is over at once."""
        self.early = False
        """True for a call that is spoken to before it is refused: it has no dialog."""
        self._events = False
        """True once a key came as telephone event: the same in INFO is no second one."""

    @property
    def group_id(self) -> str:
        """The relay's name of it."""
        return PREFIX + self.leg_id

    async def play(self, *prompts: Prompt) -> None:
        """Speak; returns once it has been spoken, was stopped, or nobody can hear it. Raises `CallGone`."""
        if not self.early:
            await self.dialog.acked.wait()
        self._check()
        if self.unheard:
            return
        number = self._count = self._count + 1
        over = self._plays[number] = asyncio.get_running_loop().create_future()
        try:
            await self._service.link.call(
                PlayPrompt(self.group_id, 0, self.leg_id, number, prompts, self._language), Done
            )
            async with asyncio.timeout(PATIENCE + LONGEST_PROMPT * len(prompts)):
                await over
        except (RelayUnavailable, ControlError, TimeoutError) as error:
            log.warning("announcement.not_spoken", leg=self.leg_id, error=str(error) or type(error).__name__)
        finally:
            del self._plays[number]
        self._check()

    async def ask(self, *prompts: Prompt, most: int, timeout: float, terminator: str = "#") -> str:
        """Speak, and take keys meanwhile and after: up to `most`, the terminator, or `timeout` seconds without one.

        The first key silences the prompt. Raises `CallGone` when the call ends.
        """
        speaking = asyncio.create_task(self.play(*prompts))
        pressed = ""
        try:
            while len(pressed) < most and not self.unheard:
                try:
                    key = await asyncio.wait_for(self._keys.get(), timeout)
                except TimeoutError:
                    if speaking.done():
                        break
                    continue
                if not speaking.done():
                    await self._hush()
                if key == terminator or not key:
                    break
                pressed += key
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
        self._check()
        return pressed

    async def end(self, reason: str) -> None:
        """BYE with this Reason header value."""
        await self.dialog.bye(reason)

    def left(self) -> None:
        """Its leg is a viewer's now: nothing more is spoken, and the dialog has another handler."""
        self._owner.forget(self)

    async def on_reinvite(self, offer: bytes) -> bytes:
        """Hold, resume, a new address; without an offer, ours again."""
        self.version += 1
        if offer:
            await self._renegotiate(offer)
        return self.describe(self.version)

    async def on_answer(self, answer: bytes) -> None:
        """What the caller takes of our offer."""
        await self._renegotiate(answer)

    def describe(self, version: int) -> bytes:
        """Our side as SDP."""
        return self.plan.answer(self.leg, self._session_id, version)

    async def on_info(self, request: Request) -> None:
        """A key, from a phone that sends no telephone events."""
        kind = request.content_type or ""
        if kind not in CONTENT_TYPES:
            raise Rejected(415, headers=(("Accept", ", ".join(CONTENT_TYPES)),))
        if (key := key_of(kind, request.body)) and not self._events:
            self._press(key)

    async def on_message(self, request: Request) -> None:
        """Nobody reads here."""
        raise not_allowed("MESSAGE", CALL_METHODS)

    def on_ended(self, cause: str) -> None:
        """The call is over: so is its leg."""
        self._owner.forget(self)
        self._service.spawn(self._owner.close(self))
        self._press("")
        self._silenced()

    def relay_event(self, event: Event) -> None:
        """What the relay reports of this leg."""
        match event:
            case PromptEnded(play=number) if number in self._plays and not self._plays[number].done():
                self._plays[number].set_result(None)
            case Digit(digit=key):
                self._events = True
                self._press(key)
            case LegLost(cause="silent"):
                pass  # some phones send nothing while their user says nothing
            case LegLost() | GroupClosed():
                self.unheard = True
                self._press("")
                self._silenced()

    async def _renegotiate(self, theirs: bytes) -> None:
        plan = self._replan(theirs)
        spec = plan.leg(self.leg_id, self.spec.number, self.spec.client_address)
        try:
            self.leg = await self._service.link.call(UpdateLeg(self.group_id, 0, spec), LegInfo)
        except (RelayUnavailable, ControlError) as error:
            raise Rejected(503, "Media Relay Unavailable") from error
        self.plan, self.spec = plan, spec

    def _press(self, key: str) -> None:
        if not self._keys.full():
            self._keys.put_nowait(key)

    def _silenced(self) -> None:
        for over in self._plays.values():
            if not over.done():
                over.set_result(None)

    async def _hush(self) -> None:
        try:
            await self._service.link.call(StopPrompt(self.group_id, 0, self.leg_id), Done)
        except (RelayUnavailable, ControlError) as error:
            log.debug("announcement.not_hushed", leg=self.leg_id, error=str(error))

    def _check(self) -> None:
        if not self.early and self.dialog.ended.is_set():
            raise CallGone


class Announcements:
    """Answers calls with announcements, and brings what the relay reports to them."""

    def __init__(self, service: Broadcasting) -> None:
        self.service = service
        self._open: dict[str, Announcement] = {}

    async def answer(
        self,
        call: IncomingCall,
        plan: Plan,
        replan: Replan | None = None,
        *,
        contact: str | None = None,
        session_id: int = 0,
        near: GroupKey | None = None,
    ) -> Announcement:
        """Answer 200 with a leg that can be spoken to. Raises `CallGone`, `Rejected`, or what `link.call` raises.

        `replan` reads later offers; without one they are read like those of plain announcements. `session_id` is that
        of our SDP (o= line). `near` is the group the leg may move into, so it is made on the same relay.
        """
        replan = replan or partial(plan_announcement, config=self.service.config.media)
        made = Announcement(self, call, plan, replan, session_id)
        self._open[made.group_id] = made
        dialog: Dialog | None = None
        try:
            made.leg = await self.service.link.call(OpenAnnouncement(made.group_id, 0, made.spec), LegInfo, near=near)
            dialog = await call.answer(body=made.describe(0), contact=contact, app={"kind": "announcement"})
        finally:
            if dialog is None:
                self.forget(made)
                self.service.spawn(self.close(made))
        made.dialog = dialog
        dialog.handler = made
        if dialog.ended.is_set():
            made.on_ended(dialog.end_cause)
        return made

    async def confirm(
        self, call: IncomingCall, offered: SessionDescription | None, prompts: tuple[Prompt, ...], reason: str
    ) -> bool:
        """Answer what the call `offered`, speak, and hang up with this Reason; False, and nothing done, where it cannot
        be spoken to.

        Raises `CallGone`, and `Rejected` for a call nobody can answer.
        """
        try:
            plan = plan_announcement(offered or b"", self.service.config.media)
        except Rejected:
            return False
        if plan.ours or not plan.hears or not self.service.config.announcements.codes:
            return False
        try:
            spoken = await self.answer(call, plan)
        except (RelayUnavailable, ControlError) as error:
            log.info("announcement.unavailable", error=str(error))
            return False
        try:
            await spoken.play(*prompts)
        except CallGone:
            return True
        await spoken.end(reason)
        return True

    async def refuse(self, call: IncomingCall, refusal: Rejected, prompt: Prompt | None = None) -> None:
        """Refuse a call: with the reason spoken before in early media (RFC 3960), where that is wanted and possible.

        Without a prompt it is the one for a viewer who is refused like this, if there is one.
        """
        prompt = prompt or _TOLD_VIEWERS.get(
            (refusal.status, refusal.reason), _TOLD_VIEWERS.get((refusal.status, None))
        )
        if prompt is not None and self.service.config.announcements.refusals:
            with suppress(CallGone, Rejected, RelayUnavailable, ControlError):
                await self._speak_early(call, prompt)
        call.reject(refusal.status, refusal.reason, refusal.headers)

    async def _speak_early(self, call: IncomingCall, prompt: Prompt) -> None:
        plan = plan_announcement(call.offer, self.service.config.media)
        if plan.ours or not plan.hears:
            return
        made = Announcement(self, call, plan, partial(plan_announcement, config=self.service.config.media), 0)
        made.early = True
        self._open[made.group_id] = made
        gone = asyncio.create_task(call.ended.wait())
        try:
            made.leg = await self.service.link.call(OpenAnnouncement(made.group_id, 0, made.spec), LegInfo)
            await call.progress(183, body=made.describe(0), reliable=True)
            speaking = asyncio.create_task(made.play(prompt))
            await asyncio.wait({speaking, gone}, return_when=asyncio.FIRST_COMPLETED)
            speaking.cancel()
        finally:
            gone.cancel()
            self.forget(made)
            await self.close(made)

    def relay_event(self, event: Event) -> bool:
        """True for a report about an announcement."""
        found = self._open.get(event.group_id)
        if found is not None:
            found.relay_event(event)
        return event.group_id.startswith(PREFIX)

    def holds(self, group_id: str) -> bool:
        """True if the relay's group of this name is a call of ours."""
        return group_id in self._open

    def forget(self, announcement: Announcement) -> None:
        """It is over, or not ours any more."""
        self._open.pop(announcement.group_id, None)

    async def close(self, announcement: Announcement) -> None:
        """Close its group on the relay; if that cannot be told now, reconciliation or the relay's grace does it."""
        await self.service.close_on_relay(announcement.group_id, 0)
