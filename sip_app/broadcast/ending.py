"""How a broadcast ends: the broadcaster hangs up, is lost beyond its grace, or the operator stops it.

The order is always the same: mark the group closing, so that new viewers get 480; withdraw the forwarding overlay;
stop the media; forget the claim; end the viewers' calls, paced, with a reason. No phone that is dead, and no store that
fails, holds up the rest.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from protocols.control import LegLost
from sip_app.broadcast.group import Broadcasting, LiveGroup, Viewer
from sip_app.metrics import limited

ENDED = 'Q.850;cause=16;text="Broadcast ended"'
STOPPED = 'Q.850;cause=16;text="{text}"'
BROADCASTER_LOST = 'Q.850;cause=27;text="Broadcaster lost"'
RELAY_LOST = 'Q.850;cause=41;text="Media relay lost"'
TIME_IS_UP = 'Q.850;cause=102;text="Maximum duration reached"'
SHUTDOWN = 'Q.850;cause=41;text="Server shutting down"'
VIEWER_LOST = 'Q.850;cause=27;text="No media or signalling from you"'

BYE_PATIENCE = 2.0
"""Seconds the end of a broadcast waits for answers to its BYEs; what comes later is dealt with beside it."""

log = structlog.get_logger()


def stopped_by_operator(text: str) -> str:
    """The Reason header value (RFC 3326) for an operator's words; quotes and control characters are taken out."""
    clean = "".join(char for char in text if char.isprintable() and char not in '"\\')[:100]
    return STOPPED.format(text=clean or "Stopped by the operator")


async def end_group(service: Broadcasting, group: LiveGroup, reason: str) -> None:
    """End one broadcast in order; `reason` is the Reason header value for everybody. Idempotent."""
    if group.over():
        return
    began_live = group.state != "opening"
    group.state = "closing"
    service.closing.add(group)
    if service.open.get(group.channel) is group:
        del service.open[group.channel]
    if group.grace is not None and group.grace is not asyncio.current_task():
        group.grace.cancel()
    if group.deadline is not None:
        group.deadline.cancel()
    if group.joined is not None and not group.joined.done():
        group.joined.cancel()
    service.note_end(group.channel)
    if began_live:
        for observer in service.observers:
            observer.broadcast_closing(group)
    try:
        await _written(group, service.store(group))
        await _written(group, service.ports.diversions.clear_overlay(group.channel, group.epoch))
        if group.forwarded:
            log.info("broadcast.forwarding_withdrawn", channel=group.channel)
        await service.close_on_relay(group.channel, group.epoch)
        # Before the BYEs: a viewer's dead phone must not keep the broadcaster from going live again.
        await _written(group, service.ports.broadcasts.release(group.channel, group.epoch, service.as_id))
        await _end_calls(service, group, reason)
    finally:
        service.closing.discard(group)
    if began_live:
        log.info(
            "broadcast.ended",
            channel=group.channel,
            epoch=group.epoch,
            reason=reason,
            seconds=round(time.time() - group.opened_at, 1),
        )
        for observer in service.observers:
            observer.broadcast_ended(group, reason)


async def conclude(service: Broadcasting, group: LiveGroup, reason: str) -> None:
    """End a broadcast because of what we believe, not because we were asked to: only once we know that it is ours."""
    await service.sure()
    await end_group(service, group, reason)


def limit_duration(service: Broadcasting, group: LiveGroup) -> None:
    """See to it that the group ends by its policy: so long after its first call, whatever restarts come between."""
    longest = group.policy.max_seconds
    if longest is None or group.over():
        return

    def end() -> None:
        limited("services.max_seconds")
        service.spawn(conclude(service, group, TIME_IS_UP))

    left = max(0.0, group.opened_at + longest - time.time())
    group.deadline = asyncio.get_running_loop().call_later(left, end)


async def _end_calls(service: Broadcasting, group: LiveGroup, reason: str) -> None:
    for call in list(group.pending):
        call.reject(480, "Broadcast Ended", [("Reason", reason)])
    gone = [service.drop_viewer(group, leg_id, reason) for leg_id in list(group.viewers)]
    dialogs = [viewer.dialog for viewer in gone if viewer is not None]
    if group.source is not None and not group.source.ended.is_set():
        dialogs.insert(0, group.source)
    pause = 1 / service.config.service.bye_rate
    byes = []
    for dialog in dialogs:
        byes.append(service.spawn(dialog.bye(reason)))
        await asyncio.sleep(pause)
    if byes:
        await asyncio.wait(byes, timeout=BYE_PATIENCE)


async def _written(group: LiveGroup, writing: Awaitable[object]) -> None:
    """A store that fails now must not keep the calls up; what it still holds is put right at the next start."""
    try:
        await writing
    except OSError as error:
        log.error("broadcast.not_written", channel=group.channel, error=str(error))


async def end_viewer(service: Broadcasting, group: LiveGroup, viewer: Viewer, reason: str) -> None:
    """End one view from our side."""
    if service.drop_viewer(group, viewer.leg_id, reason) is not None:
        await service.remove_leg(group, viewer.leg_id)
    await viewer.dialog.bye(reason)


def leg_lost(service: Broadcasting, report: LegLost) -> None:
    """A silent leg: its phone is asked by OPTIONS as long as the silence lasts, and given up when it is gone too."""
    leg = (report.group_id, report.epoch, report.leg_id)
    mine = service.silent[leg] = object()  # a leg that flaps is asked after once, by whoever came last

    async def ask() -> None:
        try:
            await _ask_after(service, report, lambda: service.silent.get(leg) is mine)
        finally:
            if service.silent.get(leg) is mine:
                del service.silent[leg]

    service.spawn(ask())


async def _ask_after(service: Broadcasting, report: LegLost, silent: Callable[[], bool]) -> None:
    patience = service.config.service.probe_timeout
    while silent() and (group := service.group(report.group_id, report.epoch)) is not None:
        if report.leg_id == group.leg_id:
            if group.source is None or group.state != "live":
                return
            if not await group.source.probe(patience):
                await service.sure()
                if group.leg_id == report.leg_id:
                    broadcaster_lost(service, group)
                return
        else:
            viewer = group.viewers.get(report.leg_id)
            if viewer is None:
                return
            if not await viewer.dialog.probe(patience):
                await service.sure()
                await end_viewer(service, group, viewer, VIEWER_LOST)
                return
        # The phone is alive, only silent (muted, on hold): ask again while the relay does not hear it.
        await asyncio.sleep(service.config.relay.leg_timeout)


def broadcaster_lost(service: Broadcasting, group: LiveGroup) -> None:
    """Keep the group for `reconnect_grace`, so that the broadcaster can call again; then end it."""
    if group.state != "live":
        return
    group.state = "lost"
    log.warning("broadcast.lost", channel=group.channel, grace_s=service.config.service.reconnect_grace)
    for observer in service.observers:
        observer.broadcast_lost(group)
    group.grace = service.spawn(_grace(service, group))


async def _grace(service: Broadcasting, group: LiveGroup) -> None:
    await _written(group, service.store(group))
    await asyncio.sleep(service.config.service.reconnect_grace)
    await conclude(service, group, BROADCASTER_LOST)
