"""What happens in a call of a broadcast once it stands: hold and resume, picture requests, its end."""

import asyncio
from dataclasses import dataclass, replace

import structlog

from protocols.control import ControlError, KeptMedia, LegInfo, LegSpec, UpdateLeg, expect
from protocols.control_json import decode, encode
from protocols.sip.message import Request
from sip_app.broadcast.ending import ENDED, broadcaster_lost, end_group
from sip_app.broadcast.group import Broadcasting, LiveGroup, Viewer
from sip_app.broadcast.keyframe_info import read_info
from sip_app.broadcast.media import Plan, plan_leg
from sip_app.broadcast.relay_link import RelayUnavailable
from sip_app.calls.capabilities import CALL_METHODS, not_allowed
from sip_app.calls.incoming import Dialog, Rejected

RETRY_AFTER = [("Retry-After", "2")]
PLAY_AGAIN = 1.0
"""Seconds until a viewer's media is started again when the relay could not be told."""
UNPLAYED = "unplayed"
"""The key under which a viewer's dialog keeps the leg that is to be started once its 200 is acknowledged."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Description:
    """Our side of a call, to be written as SDP; a call restored from the store has none."""

    plan: Plan
    leg: LegInfo
    session_id: int
    video_bitrate: int | None

    def __call__(self, version: int) -> bytes:
        """The SDP, under this o= version."""
        return self.plan.answer(self.leg, self.session_id, version, self.video_bitrate)


@dataclass(slots=True, eq=False)
class SourceCall:
    """The broadcaster's dialog."""

    service: Broadcasting
    group: LiveGroup
    dialog: Dialog
    describe: Description | None = None

    async def on_reinvite(self, offer: bytes) -> bytes:
        """Hold, resume or a new address of the broadcaster; without an offer, ours again."""
        self.group.source_version += 1
        self.describe = await _renegotiate(self.service, self.group, self.dialog, offer, self.describe)
        return self.describe(self.group.source_version)

    async def on_answer(self, answer: bytes) -> None:
        """What the broadcaster takes of our offer."""
        self.describe = await _renegotiate(self.service, self.group, self.dialog, answer, self.describe, to_ours=True)

    async def move(self, leg: LegInfo) -> bool:
        """Send the broadcaster to other ports of the relay, unless it knows them; False if it does not go there."""
        if self.describe is None or self.describe.leg == leg:
            return self.describe is not None
        self.group.source_version += 1
        self.describe = replace(self.describe, leg=leg)
        return await self.dialog.reoffer(self.describe(self.group.source_version))

    async def on_info(self, request: Request) -> None:
        """Nothing a broadcaster can ask for this way; it may say that it cannot do what was asked of it."""
        read_info(self.dialog, request)

    async def on_message(self, request: Request) -> None:
        """An answer to all viewers."""
        if self.service.messages is None:
            raise not_allowed("MESSAGE", CALL_METHODS)
        self.service.messages.answer(self.group, request)

    def on_ended(self, cause: str) -> None:
        """Its BYE ends the broadcast, or that it takes nothing of our offer; all else may be an accident: we wait."""
        if self.group.source is not self.dialog or self.group.over():
            return
        if cause in ("bye", "no-answer"):
            self.service.spawn(end_group(self.service, self.group, ENDED))
        elif cause != "local":
            broadcaster_lost(self.service, self.group)


@dataclass(slots=True, eq=False)
class ViewerCall:
    """A viewer's dialog."""

    service: Broadcasting
    group: LiveGroup
    viewer: Viewer
    describe: Description | None = None

    async def on_reinvite(self, offer: bytes) -> bytes:
        """Hold, resume or a new address of this viewer; without an offer, ours again. No other is touched."""
        self.viewer.sdp_version += 1
        self.describe = await _renegotiate(self.service, self.group, self.viewer.dialog, offer, self.describe)
        return self.describe(self.viewer.sdp_version)

    async def on_answer(self, answer: bytes) -> None:
        """What this viewer takes of our offer."""
        self.describe = await _renegotiate(
            self.service, self.group, self.viewer.dialog, answer, self.describe, to_ours=True
        )

    async def move(self, leg: LegInfo) -> bool:
        """Send this viewer to other ports of the relay, unless it knows them; False if it does not go there."""
        if self.describe is None or self.describe.leg == leg:
            return self.describe is not None
        self.viewer.sdp_version += 1
        self.describe = replace(self.describe, leg=leg)
        return await self.viewer.dialog.reoffer(self.describe(self.viewer.sdp_version))

    async def on_info(self, request: Request) -> None:
        """A picture fast update (RFC 5168) from a phone that knows no RTCP feedback."""
        if read_info(self.viewer.dialog, request):
            await self.service.request_keyframe(self.group)

    async def on_message(self, request: Request) -> None:
        """A question to the broadcaster."""
        if self.service.messages is None:
            raise not_allowed("MESSAGE", CALL_METHODS)
        self.service.messages.question(self.group, self.viewer, request)

    def on_ended(self, cause: str) -> None:
        """The viewer is gone: its leg goes too."""
        if self.service.drop_viewer(self.group, self.viewer.leg_id, cause) is not None:
            self.service.spawn(self.service.remove_leg(self.group, self.viewer.leg_id))


async def _renegotiate(
    service: Broadcasting,
    group: LiveGroup,
    dialog: Dialog,
    offer: bytes,
    before: Description | None,
    *,
    to_ours: bool = False,
) -> Description:
    """Bring the leg to what the peer offers, or answers to an offer of ours: that one's credentials then stay."""
    if not offer and before is not None:
        return before
    plan = plan_leg(offer, "source" if dialog.app["role"] == "source" else "sink", group.formats)
    spec = plan.leg(dialog.app["leg"], dialog.app["number"], dialog.app["client"])
    if to_ours and before is not None:
        spec = replace(spec, kept=tuple(KeptMedia(medium) for medium in before.leg.media))
    try:
        leg = await service.link.call(UpdateLeg(group.channel, group.epoch, spec), LegInfo)
    except (RelayUnavailable, ControlError) as error:
        raise Rejected(503, "Media Relay Unavailable", RETRY_AFTER) from error
    dialog.app.pop(UNPLAYED, None)
    return description(service, group, plan, leg)


def description(service: Broadcasting, group: LiveGroup, plan: Plan, leg: LegInfo) -> Description:
    """How the answer that sends a peer to this leg's addresses is written."""
    bitrate = service.config.media.video_bitrate_max if plan.role == "source" else None
    return Description(plan, leg, group.session_id, bitrate)


def unplayed(group: LiveGroup, spec: LegSpec) -> dict[str, str]:
    """What a viewer's dialog remembers until its media is started, a restart of this server included."""
    return {UNPLAYED: encode(UpdateLeg(group.channel, group.epoch, spec))[1].decode()}


async def play(service: Broadcasting, group: LiveGroup, dialog: Dialog) -> None:
    """Start a viewer's media once it has our answer.

    A phone that does no checks drops what comes before its 200: the keyframe that it was to begin with.
    """
    await dialog.acked.wait()
    while not (dialog.ended.is_set() or group.over()) and (kept := dialog.app.get(UNPLAYED)):
        try:
            await service.link.call(expect(decode("UpdateLeg", kept.encode()), UpdateLeg), LegInfo)
            dialog.app.pop(UNPLAYED, None)
        except ControlError:
            return  # the leg or its group is gone
        except RelayUnavailable:
            await asyncio.sleep(PLAY_AGAIN)
