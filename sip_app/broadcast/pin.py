"""The PIN of a private broadcast, asked for by voice before its viewer gets in.

The viewer's INVITE is answered at once with all the media it will have, on a leg of its own that hears prompts and sees
nothing. When the PIN was right, the relay moves that very leg into the broadcast: addresses, ports and codecs stay, so
there is nothing to negotiate anew, and a stock phone notices only that the picture starts.
"""

import time
from functools import partial

import structlog

from protocols.control import AddViewer, ControlError, LegInfo
from protocols.prompts import Prompt
from sip_app.broadcast.announcements import UNHEARD, Announcement, Announcements
from sip_app.broadcast.ending import ENDED
from sip_app.broadcast.group import Broadcasting, LiveGroup, Viewer
from sip_app.broadcast.in_call import RETRY_AFTER, ViewerCall, description
from sip_app.broadcast.media import plan_leg
from sip_app.broadcast.relay_link import RelayUnavailable
from sip_app.calls.incoming import CallGone, IncomingCall, Rejected
from sip_app.metrics import PINS, limited

MAX_DIGITS = 16
REFUSED = 'SIP;cause=403;text="Wrong PIN"'
NO_PIN = 'SIP;cause=403;text="No PIN Entered"'
FULL = 'Q.850;cause=17;text="Broadcast is full"'
NO_RELAY = 'Q.850;cause=41;text="Media relay unavailable"'
_VERDICTS = {"": "right", REFUSED: "refused", NO_PIN: "none", ENDED: "ended", FULL: "full", UNHEARD: "unheard"}

log = structlog.get_logger()


class PinDesk:
    """Asks viewers for PINs and lets those in who know it."""

    def __init__(self, announcements: Announcements) -> None:
        self._announcements = announcements
        self._asking = 0

    async def admit(self, service: Broadcasting, call: IncomingCall, group: LiveGroup) -> None:
        """Answer the call, ask, judge by the service's gate, and let in or hang up with a reason.

        Raises `Rejected` and `CallGone` only before the call is answered.
        """
        replan = partial(plan_leg, role="sink", formats=group.formats)
        plan = replan(call.offer)
        if not plan.hears or not plan.speakable:
            raise Rejected(403, "PIN Needed: Call With Sound")
        if self._asking >= service.config.announcements.pin_calls:
            limited("announcements.pin_calls")
            raise Rejected(486, "Too Many PINs Asked For", RETRY_AFTER)
        self._asking += 1
        group.at_pin.add(call)
        try:
            asked = await self._announcements.answer(
                call,
                plan,
                replan,
                contact=service.contact(call, group),
                session_id=group.session_id,
                near=(group.channel, group.epoch),
            )
            try:
                verdict = await self._serve(service, call, group, asked)
            except CallGone:
                verdict = "gone"
                log.info("viewer.gone_at_pin", channel=group.channel, viewer=call.caller.number)
            PINS.labels(verdict).inc()
        finally:
            self._asking -= 1
            group.at_pin.discard(call)

    async def _serve(self, service: Broadcasting, call: IncomingCall, group: LiveGroup, asked: Announcement) -> str:
        """Ask, and let in or hang up; the verdict, for the metric. Raises `CallGone`."""
        reason = await self._refusal(service, call, group, asked)
        if asked.unheard:
            reason = UNHEARD
        elif not reason and group.over():
            await asked.play("ended")
            reason = ENDED
        elif not reason and not group.room_for(1):
            limited("services.max_viewers")
            await asked.play("full")
            reason = FULL
        if reason:
            await asked.end(reason)
        else:
            group.at_pin.discard(call)  # from here on it has its place
            await _let_in(service, call, group, asked)
        return _VERDICTS[reason]

    async def _refusal(self, service: Broadcasting, call: IncomingCall, group: LiveGroup, asked: Announcement) -> str:
        """Why the caller is not let in, "" once the PIN was right. Pressing nothing is no try, yet asked no oftener."""
        settings = service.config.announcements
        reason = NO_PIN
        prompts: tuple[Prompt, ...] = ("pin-enter",)
        for _ in range(settings.pin_tries):
            pin = await asked.ask(*prompts, most=MAX_DIGITS, timeout=settings.key_timeout)
            prompts = ("pin-enter",)
            if asked.unheard:
                return UNHEARD
            if not pin:
                continue
            try:
                if await service.gate.verify_pin(group.policy, group.channel, call.caller, pin):
                    return ""
            except Rejected:  # too many wrong ones, from this caller or for this channel: not even looked at
                reason = REFUSED
                break
            reason, prompts = REFUSED, ("pin-wrong", "pin-enter")
        else:
            limited("announcements.pin_tries")
        if reason == REFUSED:
            await asked.play("pin-failed")
        return reason


async def _let_in(service: Broadcasting, call: IncomingCall, group: LiveGroup, asked: Announcement) -> None:
    dialog = asked.dialog
    try:
        asked.leg = await service.link.call(AddViewer(group.channel, group.epoch, asked.spec), LegInfo)
    except (RelayUnavailable, ControlError) as error:
        log.warning("viewer.no_relay", channel=group.channel, error=str(error))
        await asked.end(NO_RELAY)
        return
    asked.left()
    viewer = Viewer(asked.leg_id, call.caller.number, dialog, time.time(), asked.version, call.caller.key)
    dialog.handler = ViewerCall(service, group, viewer, description(service, group, asked.plan, asked.leg))
    await dialog.remember(group.leg_keys(asked.spec, "sink", call.caller.key))
    if dialog.ended.is_set():
        await service.remove_leg(group, asked.leg_id)
        raise CallGone
    if group.over():
        await dialog.bye(ENDED)
        return
    service.add_viewer(group, viewer)
