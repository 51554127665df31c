"""Who is still there: silence, consent (RFC 7675) and addresses that never answer."""

from math import inf

from media_relay.groups import Groups
from media_relay.legs import Leg
from media_relay.ports import MediaPort
from protocols.control import LegBack, LegLost
from protocols.net import Address
from provisioning.config import RelayConfig

UNREACHABLE_ERRORS = 3
"""ICMP errors about a leg that, with silence, make it lost before its timeout; one alone can be forged or stale."""
UNREACHABLE_SILENCE = 2.0
VIEWER_SILENCE = 8.0
"""The same for a viewer that was heard: it may only report, every 5 s times up to 1.5 (RFC 3550 section 6.2), and
whoever forges ICMP must not stop its picture in between."""
VISIT_INTERVAL = 1.0


class Liveness:
    """Judges legs by when they were last heard."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._config = groups.config

    def reconfigure(self, config: RelayConfig) -> None:
        """Judge by changed timeouts from now on."""
        self._config = config

    def interval(self) -> float:
        """Seconds between two visits of a leg: fine enough for the shortest timeout."""
        config = self._config
        shortest = min(config.leg_timeout, config.consent_timeout, config.unanswered_timeout, config.latch_window)
        return min(VISIT_INTERVAL, shortest / 4, config.rtcp_interval)

    def heard_at(self, leg: Leg) -> float | None:
        """The last authentic sign of life, None before the first."""
        state = self._groups.engine.leg(leg.group_id, leg.leg_id)
        times = [t for t in (leg.heard_at, state.heard_at if state is not None else None) if t is not None]
        return max(times, default=None)

    def quiet_until(self, leg: Leg, now: float) -> float:
        """When a leg may next be found changed: one that is heard and well not before its time runs out.

        One that was never heard is looked at less and less often; at its first report or check it is there at once.
        """
        config, heard_at = self._config, self.heard_at(leg)
        soon = now + self.interval()
        latching = any(medium.rtp_latch is not None for medium in leg.media.values())
        if leg.lost is not None or leg.errors or latching or leg.joined != (heard_at is not None):
            return soon
        if heard_at is None:
            timeout = config.leg_timeout if leg.ice else config.unanswered_timeout
            seldom = now + min((now - leg.created_at) / 4, config.rtcp_interval)
            return max(soon, min(seldom, leg.created_at + timeout))
        responders = (medium.responder for medium in leg.media.values() if medium.responder is not None)
        checks = (responder.last_check for responder in responders if responder.last_check is not None)
        ends = min((check + config.consent_timeout for check in checks), default=inf)
        return max(soon, min(heard_at + config.leg_timeout, ends))

    def visit(self, leg: Leg, now: float) -> None:
        """Look at one leg: report it lost or back, cut what may not be sent any more."""
        heard_at = self.heard_at(leg)
        if heard_at is not None and not leg.joined:
            self._groups.heard(leg, heard_at)
        cause = self._cause(leg, heard_at, now)
        cut = cause in ("unanswered", "consent", "unreachable") or (cause == "silent" and leg.elsewhere)
        latching = any(medium.peer is None and medium.rtp_latch is not None for medium in leg.media.values())
        if cut != leg.cut or latching:
            leg.cut = cut
            self._groups.sync(leg, now)
        if cause is None and leg.lost is not None:
            leg.lost = None
            self._groups.emit(leg, LegBack(leg.group_id, leg.epoch, leg.leg_id))
        elif cause is not None and leg.lost is None:
            leg.lost = cause
            self._groups.emit(leg, LegLost(leg.group_id, leg.epoch, leg.leg_id, cause))

    def unreachable(self, port: MediaPort, address: Address, leg_id: str, now: float) -> None:
        """ICMP named an address: charge the leg that lives there, and nobody else.

        The engine names it, but for a leg that is announced to.
        """
        group = self._groups.by_id.get(port.group_id)
        leg = group.legs.get(leg_id) if group is not None else None
        if leg is None and port.owner is not None and port.owner.peer == address:
            leg = port.owner.leg
        if leg is not None:
            leg.errors += 1
            if leg.errors == 1:
                self._groups.visit_at(leg, now + self.interval())

    def _cause(self, leg: Leg, heard_at: float | None, now: float) -> str | None:
        config = self._config
        silent = now - (leg.created_at if heard_at is None else heard_at)
        if silent < (VIEWER_SILENCE if leg.role == "sink" and heard_at is not None else UNREACHABLE_SILENCE):
            leg.errors = 0
        elif leg.errors >= UNREACHABLE_ERRORS:
            return "unreachable"
        if heard_at is None and leg.ice:
            # Nothing is sent before the join and its user may take his time; but is the phone still there?
            return "silent" if silent > config.leg_timeout else None
        if heard_at is None:
            return "unanswered" if silent > config.unanswered_timeout else None
        for medium in leg.media.values():
            responder = medium.responder
            if responder is not None and medium.peer and not responder.has_consent(now, config.consent_timeout):
                return "consent"
        return "silent" if silent > config.leg_timeout else None
