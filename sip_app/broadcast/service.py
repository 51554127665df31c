"""The service number's calls: going live and watching (mission steps 1-14), and what the relay reports meanwhile."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from protocols.control import (
    AddViewer,
    ControlError,
    Event,
    GroupClosed,
    KeyframeWanted,
    LegBack,
    LegInfo,
    LegJoined,
    LegLost,
    LegReports,
    LegSpec,
    MediaStarted,
    OpenGroup,
    ReplaceSource,
)
from protocols.net import Address
from protocols.records import Overlay, StoredDialog
from protocols.sip.message import Request
from provisioning.config import ServicePolicy
from sip_app.broadcast.ending import (
    ENDED,
    RELAY_LOST,
    SHUTDOWN,
    broadcaster_lost,
    conclude,
    end_group,
    leg_lost,
    limit_duration,
)
from sip_app.broadcast.group import LEASE, Broadcasting, LiveGroup, Viewer, new_leg_id
from sip_app.broadcast.in_call import RETRY_AFTER, SourceCall, ViewerCall, description, play, unplayed
from sip_app.broadcast.keyframe_info import ask_picture
from sip_app.broadcast.media import Plan, plan_leg, plan_source, silenced
from sip_app.broadcast.recovery import adopt, reconcile, restore
from sip_app.broadcast.relay_link import RelayLink, RelayUnavailable
from sip_app.calls.incoming import CallGone, Dialog, DialogHandler, IncomingCall, OverlayOutcome, Rejected
from sip_app.metrics import limited

JOIN_FEATURE = "+g.dialcast.join"
"""Our Contact feature tag (RFC 3840): this terminal joins by STUN between the 183 and the 200."""

log = structlog.get_logger()


class Elsewhere(Protocol):
    """Knows the broadcasts of the other servers on our store (`takeover`)."""

    async def holder(self, channel: str) -> Address | None:
        """The living server that holds the channel's broadcast, if that is another."""
        ...

    async def settle(self) -> None:
        """Give up what other servers have taken over."""
        ...


class BroadcastCalls:
    """Answers the calls to the service number; the control link's listener."""

    def __init__(self, service: Broadcasting) -> None:
        self.service = service
        self.elsewhere: Elsewhere | None = None
        self._orphaned: dict[RelayLink, asyncio.Task[None]] = {}

    async def go_live(self, call: IncomingCall) -> None:
        """The caller becomes the broadcaster of its own number, or takes its broadcast over after a loss."""
        group = self.service.open.get(call.caller.aor)
        try:
            policy = self._policy(call)
            if group is not None and not await self._may_take_over(group):
                raise Rejected(486, "You Are Already Live")
            if group is not None and group.service == call.service:
                await self._take_over(call, group)
                return
            if group is not None:  # another service number is another broadcast, under another policy
                await end_group(self.service, group, ENDED)
            await self._open(call, policy)
        except Rejected as refusal:
            call.reject(refusal.status, refusal.reason, refusal.headers)
        except CallGone:
            log.info("broadcast.caller_gone", channel=call.caller.aor)
            call.reject(480, "Broadcast Ended")  # heard only by a caller that is still there: the broadcast went first
        except RelayUnavailable as error:
            log.warning("broadcast.no_relay", channel=call.caller.aor, error=str(error))
            call.reject(503, "Media Relay Unavailable", RETRY_AFTER)
        except ControlError as error:
            log.warning("broadcast.refused_by_relay", channel=call.caller.aor, error=str(error))
            call.reject(503, "Media Relay Refuses", RETRY_AFTER)

    async def open_to_guests(self, channel: str) -> bool:
        """True if a caller nobody has identified may watch the channel."""
        group = self.service.open.get(channel)
        policy = group.policy if group is not None else None
        if group is None and (claim := await self.service.ports.broadcasts.get(channel)) is not None:
            policy = self.service.policies.get(claim.service)  # another server on our store holds it
        return policy is not None and await self.service.gate.open_to_guests(policy, channel)

    async def watch(self, call: IncomingCall, channel: str) -> None:
        """The caller is added to the channel's group."""
        number = channel.partition("@")[0]
        group = self.service.open.get(channel)
        if group is None or group.state == "opening":
            await self._refuse(call, Rejected(480, f"{number} Is Not Live"))
            return
        group.pending.add(call)
        try:
            await self._admit(call, group)
        except Rejected as refusal:
            await self._refuse(call, refusal)
        except CallGone:
            log.info("viewer.caller_gone", channel=channel, viewer=call.caller.number)
        except (RelayUnavailable, ControlError) as error:
            log.warning("viewer.no_relay", channel=channel, error=str(error))
            call.reject(503, "Media Relay Unavailable", RETRY_AFTER)
        finally:
            group.pending.discard(call)

    async def _refuse(self, call: IncomingCall, refusal: Rejected) -> None:
        """Turn a viewer away, told why by voice where that is wanted."""
        if self.service.announcements is None:
            call.reject(refusal.status, refusal.reason, refusal.headers)
        else:
            await self.service.announcements.refuse(call, refusal)

    async def activate_overlay(self, channel: str) -> OverlayOutcome:
        """Forward calls of the channel's number to the service number while its group is open."""
        group = self.service.open.get(channel)
        if group is None and not self.service.just_ended(channel):
            return await self._activate_elsewhere(channel)
        if group is None or group.state not in ("live", "lost"):
            return "too early or too late"
        diversions = self.service.ports.diversions
        await diversions.set_overlay(channel, Overlay(group.service, channel, group.epoch))
        if group.over():  # meanwhile
            await diversions.clear_overlay(channel, group.epoch)
            return "too early or too late"
        group.forwarded = True
        log.info("broadcast.forwarded", channel=channel, target=group.service)
        return "active"

    async def _activate_elsewhere(self, channel: str) -> OverlayOutcome:
        """The same for a broadcast that another server on our store holds."""
        ports = self.service.ports
        claim = await ports.broadcasts.get(channel)
        if claim is None or claim.as_id == self.service.as_id:
            return "no broadcast"
        if claim.state in ("live", "lost"):
            await ports.diversions.set_overlay(channel, Overlay(claim.service, channel, claim.epoch))
            if any((c.channel, c.epoch) == (channel, claim.epoch) for c in await ports.broadcasts.all()):
                return "active"
            await ports.diversions.clear_overlay(channel, claim.epoch)  # it ended while we wrote
        return "too early or too late"

    async def holder(self, channel: str) -> Address | None:
        """Where the other server on our store listens that holds the channel's broadcast; None for us or nobody."""
        return await self.elsewhere.holder(channel) if self.elsewhere is not None else None

    async def restore(self, restore_dialog: Callable[[StoredDialog], Dialog]) -> None:
        """Hold again what this server held before it died; before the first INVITE is accepted."""
        await restore(self.service, restore_dialog, self.handler)
        for link in self.service.link.links:
            self.relay_down(link)  # as far as anybody knows yet

    async def stop(self) -> None:
        """End every broadcast with a reason."""
        groups = [*self.service.open.values()]
        await asyncio.gather(*(conclude(self.service, group, SHUTDOWN) for group in groups), return_exceptions=True)

    async def renew_leases(self) -> None:
        """Keep the claims of the open groups standing, for as long as the server runs."""
        while True:
            await asyncio.sleep(LEASE / 3)
            for group in list(self.service.open.values()):
                try:
                    if group.state != "opening" and not await self.service.store(group) and self.elsewhere is not None:
                        await self.elsewhere.settle()  # another server has it
                except OSError as error:
                    log.error("broadcast.lease_not_renewed", channel=group.channel, error=str(error))

    async def relay_up(self, link: RelayLink) -> None:
        """The link stands: agree with the relay on what there is."""
        if (orphaned := self._orphaned.pop(link, None)) is not None:
            orphaned.cancel()
        await reconcile(self.service, link)

    def relay_down(self, link: RelayLink) -> None:
        """Media may go on without the link, for a while."""
        if link not in self._orphaned:
            self._orphaned[link] = self.service.spawn(self._without_relay(link))

    async def _without_relay(self, link: RelayLink) -> None:
        """A relay that stays away for `orphan_grace` has no groups of ours any more: the calls end."""
        await asyncio.sleep(self.service.config.service.orphan_grace)
        del self._orphaned[link]
        home = self.service.link.home  # none: on a relay that was never reached, or is not ours any more
        groups = [g for g in self.service.open.values() if home((g.channel, g.epoch)) in (link, None) and g.epoch]
        log.error("relay.given_up", relay=str(link.address), broadcasts=len(groups))
        for group in groups:  # each by itself: a relay that comes back now must not stop them halfway
            self.service.spawn(conclude(self.service, group, RELAY_LOST))

    def relay_event(self, event: Event) -> None:
        """A report of the relay; those about groups that are gone are ignored, but for their counters."""
        self.service.link.heard(event)
        if isinstance(event, LegReports):
            if self.service.recorder is not None:
                self.service.recorder.media_ended(event)
            return
        if self.service.announcements is not None and self.service.announcements.relay_event(event):
            return
        group = self.service.group(event.group_id, event.epoch)
        if group is None:
            return
        match event:
            case LegJoined(leg_id=leg_id):
                log.info("leg.joined", channel=group.channel, leg=leg_id, source=leg_id == group.leg_id)
                if leg_id == group.leg_id and group.joined is not None and not group.joined.done():
                    group.joined.set_result(None)
            case LegLost(leg_id=leg_id, cause=cause):
                log.info("leg.silent", channel=group.channel, leg=leg_id, source=leg_id == group.leg_id, cause=cause)
                leg_lost(self.service, event)
            case LegBack(leg_id=leg_id):
                log.info("leg.back", channel=group.channel, leg=leg_id)
                self.service.silent.pop((event.group_id, event.epoch, leg_id), None)
            case MediaStarted(kind=kind):
                group.unheard = False
                log.info("broadcast.media_started", channel=group.channel, kind=kind)
            case KeyframeWanted() if group.source is not None:
                self.service.spawn(ask_picture(group.source))
            case GroupClosed(cause=cause):
                log.warning("broadcast.closed_by_relay", channel=group.channel, cause=cause)
                self.service.spawn(conclude(self.service, group, ENDED))

    def handler(self, group: LiveGroup, dialog: Dialog) -> DialogHandler:
        """Who answers to what happens in a stored dialog of the group, the source's or a viewer's."""
        viewer = adopt(group, dialog)
        if viewer is None:
            return SourceCall(self.service, group, dialog)
        return ViewerCall(self.service, group, viewer)

    def _policy(self, call: IncomingCall) -> ServicePolicy:
        """The rules of the dialled number, if they let the caller go live."""
        policy = self.service.policies.get(call.service)
        if policy is None:  # taken out of the configuration this moment
            raise Rejected(404)
        if not policy.lets_broadcast(call.caller.aor):
            log.info("broadcast.not_allowed", channel=call.caller.aor, service=call.service)
            raise Rejected(403, f"{call.caller.number} May Not Go Live On {policy.number}")
        return policy

    async def _open(self, call: IncomingCall, policy: ServicePolicy) -> None:
        service, settings = self.service, self.service.config.service
        if call.caller.aor in service.open:  # another call of the same number was faster
            raise Rejected(486, "You Are Already Live")
        if len(service.open) >= settings.max_groups:
            limited("service.max_groups")
            raise Rejected(486, "Too Many Broadcasts", RETRY_AFTER)
        plan = plan_source(call.offer, service.config.media)
        group = LiveGroup(call.caller.aor, new_leg_id(), plan.formats, call.service, policy, unheard=True)
        service.open[group.channel] = group
        try:
            group.epoch = await service.ports.broadcasts.next_epoch(group.channel)
            if await service.ports.broadcasts.claim(service.claim(group), time.time()) is not None:
                raise Rejected(486, "Already Live On Another Server")
            log.info("broadcast.opening", channel=group.channel, epoch=group.epoch)
            spec = plan.leg(group.leg_id, call.caller.number, call.caller.client_address.host)
            group.joined = asyncio.get_running_loop().create_future()
            leg = await service.link.call(OpenGroup(group.channel, group.epoch, spec), LegInfo)
            group.source = await self._answer_source(call, group, plan, spec, leg)
        finally:
            if group.state == "opening":
                await end_group(service, group, ENDED)
        limit_duration(service, group)
        service.spawn(self._forward_if_the_phone_does_not(group, group.source))

    async def _answer_source(
        self, call: IncomingCall, group: LiveGroup, plan: Plan, spec: LegSpec, leg: LegInfo
    ) -> Dialog:
        """183 and join where the terminal can, else the answer at once; live on return."""
        service, before = self.service, group.state
        describe = description(service, group, plan, leg)
        body = describe(group.source_version)
        contact = service.contact(call, group)
        if _joins(call.request, plan):
            await call.progress(183, body=body, contact=contact, reliable=True)
            await self._await_join(call, group, leg)
            body = b""
        if group.over() or call.cancelled:
            raise CallGone
        group.state = "live"
        dialog: Dialog | None = None
        try:
            await service.store(group)
            dialog = await call.answer(body=body, contact=contact, app=group.leg_keys(spec, "source", call.caller.key))
        finally:
            if dialog is None and not group.over():
                group.state = before
        dialog.handler = SourceCall(service, group, dialog, describe)
        if group.over():  # it ended while the answer was being made durable
            service.spawn(dialog.bye(ENDED))
            raise CallGone
        log.info("broadcast.live", channel=group.channel, epoch=group.epoch, joined=not body)
        for observer in service.observers:
            (observer.broadcast_back if group.replacing else observer.broadcast_live)(group)
        return dialog

    async def _await_join(self, call: IncomingCall, group: LiveGroup, leg: LegInfo) -> None:
        assert group.joined is not None
        given_up: asyncio.Future[Any] = asyncio.ensure_future(call.ended.wait())
        waiting: set[asyncio.Future[Any]] = {group.joined, given_up}
        timeout = self.service.config.service.join_timeout
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        given_up.cancel()
        if call.cancelled or group.joined.cancelled():
            raise CallGone
        if not group.joined.done():
            where = ", ".join(f"udp {media.rtp}" for media in leg.media)
            raise Rejected(504, "No Join Reached The Relay", [("Warning", f'399 dialcast "No STUN check at {where}"')])

    async def _may_take_over(self, group: LiveGroup) -> bool:
        """True when the old call is lost; asked by OPTIONS where the silence has not been noticed yet."""
        if group.state == "opening" or group.replacing:
            return False
        if group.state == "lost" or group.policy.second_attempt == "takeover":
            return True
        return group.source is None or not await group.source.probe(self.service.config.service.probe_timeout)

    async def _take_over(self, call: IncomingCall, group: LiveGroup) -> None:
        """The broadcaster is back: same group, same viewers, a new source leg; the old dialog gets BYE."""
        service = self.service
        if group.over():
            raise Rejected(480, "Broadcast Just Ended")
        if group.replacing:
            raise Rejected(486, "You Are Already Live")
        plan = plan_leg(call.offer, "source", group.formats)  # a refused offer leaves everything as it was
        if group.grace is not None:
            group.grace.cancel()
        group.replacing = True
        old, old_leg = group.source, group.leg_id
        group.leg_id, group.source, group.unheard = new_leg_id(), None, True
        group.joined = asyncio.get_running_loop().create_future()
        group.source_version += 1
        try:
            spec = plan.leg(group.leg_id, call.caller.number, call.caller.client_address.host)
            leg = await service.link.call(ReplaceSource(group.channel, group.epoch, spec), LegInfo)
            group.source = await self._answer_source(call, group, plan, spec, leg)
        finally:
            group.replacing = False
            service.silent.pop((group.channel, group.epoch, old_leg), None)
            if old is not None:
                service.spawn(old.bye('SIP;cause=200;text="Call taken over by a new one"'))
            if group.source is None and not group.over():
                group.state = "live"
                broadcaster_lost(service, group)
        log.info("broadcast.taken_over", channel=group.channel, epoch=group.epoch)

    async def _forward_if_the_phone_does_not(self, group: LiveGroup, dialog: Dialog) -> None:
        """A stock phone activates no forwarding; after a while the server does it (the clock starts at the ACK)."""
        await dialog.acked.wait()
        await asyncio.sleep(self.service.config.service.overlay_delay)
        if not group.forwarded and group.state in ("live", "lost"):
            await self.activate_overlay(group.channel)

    async def _admit(self, call: IncomingCall, group: LiveGroup) -> None:
        service = self.service
        if call.caller.aor == group.channel:
            raise Rejected(486, "This Is Your Own Broadcast")
        needs_pin = await service.gate.needs_pin(group.policy, group.channel, call.caller)
        if not group.room_for(0):
            limited("services.max_viewers")
            raise Rejected(486, "Broadcast Is Full", RETRY_AFTER)
        if group.views_of(call.caller.key) > service.config.service.max_views_per_number:
            limited("service.max_views_per_number")
            raise Rejected(486, "You Watch Already")
        if needs_pin:
            if service.ask_pin is None:
                raise Rejected(403, "PIN Needed")
            await service.ask_pin(service, call, group)
            return
        plan = plan_leg(call.offer, "sink", group.formats)
        leg_id = new_leg_id()
        dialog: Dialog | None = None
        try:
            spec = plan.leg(leg_id, call.caller.number, call.caller.client_address.host)
            reserved = spec if plan.ice or plan.ours else silenced(spec)
            leg = await service.link.call(AddViewer(group.channel, group.epoch, reserved), LegInfo)
            if group.over() or call.cancelled:
                raise Rejected(480, "Broadcast Ended")
            describe = description(service, group, plan, leg)
            dialog = await call.answer(
                body=describe(0),
                contact=service.contact(call, group),
                app=group.leg_keys(spec, "sink", call.caller.key) | ({} if reserved is spec else unplayed(group, spec)),
            )
        finally:
            if dialog is None:
                await service.remove_leg(group, leg_id)
        viewer = Viewer(leg_id, call.caller.number, dialog, time.time(), caller=call.caller.key)
        dialog.handler = ViewerCall(service, group, viewer, describe)
        if group.over():
            await dialog.bye(ENDED)
            return
        service.add_viewer(group, viewer)
        if reserved is not spec:
            service.spawn(play(service, group, dialog))


def _joins(request: Request, plan: Plan) -> bool:
    """True for a terminal that joins before the answer: ICE credentials, 100rel, and our feature tag."""
    tagged = any(contact.param(JOIN_FEATURE) is not None for contact in request.contacts)
    return plan.ice and tagged and "100rel" in request.supported | request.required
