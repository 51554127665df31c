"""Whom a user may forward to: one rule for service codes, XCAP and a phone's own deflection.

A service number, another subscriber, or what an operator's pattern (`sip.allow_targets`) lets go elsewhere.
"""

from protocols.sip.uri import SipUri, Uri
from sip_app.numbers import NumberPlan
from sip_app.ports import Credentials


class ForwardingTargets:
    """Judges targets."""

    def __init__(self, plan: NumberPlan, credentials: Credentials) -> None:
        self._plan = plan
        self._credentials = credentials

    async def find(self, served: str, wanted: str | Uri) -> str | None:
        """The key of a number as dialled, or of a URI, if `served` may forward to it; else None."""
        plan = self._plan
        if isinstance(wanted, str):
            target: str | None = plan.expand(wanted.lstrip("+"), served)
            written = plan.expand(wanted, served)
        else:
            target = plan.aor(wanted, served)
            if target is None and isinstance(wanted, SipUri) and wanted.user:
                target = f"{wanted.decoded_user}@{wanted.host}"
            written = target or ""
        if target is None or target == served or not plan.may_reach(served, target):
            return None
        if plan.is_service(target) or plan.may_leave_for(written) or plan.may_leave_for(target):
            return target
        return target if await self._credentials.find(target) is not None else None
