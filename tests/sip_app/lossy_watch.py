"""A subscription of a `lossy_phone.Phone` (RFC 6665): asked for, refreshed, ended, and what its NOTIFYs said."""

from typing import TYPE_CHECKING

from protocols.sip.dialog import DialogState, uac_dialog
from protocols.sip.events import ServerTransaction
from protocols.sip.message import Request, Response
from tests.sip_app.lossy_calls import DOMAIN

if TYPE_CHECKING:
    from tests.sip_app.lossy_phone import Phone
    from tests.sip_app.lossy_world import LossyWorld


class Watch:
    """`body` is the latest state told. A NOTIFY may come before the answer to its SUBSCRIBE does."""

    def __init__(self, phone: "Phone", channel: str, package: str) -> None:
        self.phone, self.channel, self.package = phone, channel, package
        self.body = b""
        self._dialog: DialogState | None = None
        self._heard = -1
        self._call_id = ""

    async def subscribe(self, expires: int) -> Response:
        """Subscribe; or refresh or end (0) what is there. Whatever is refused is no subscription any more."""
        lines = [("Event", self.package), ("Expires", str(expires)), ("Contact", self.phone.contact)]
        if self._dialog is not None:
            self._dialog, request = self._dialog.request("SUBSCRIBE", headers=lines[:2])
            response = await self.phone.final(request)
        else:
            uri = f"sip:{self.channel.partition('@')[0]}@{DOMAIN}"
            request = self.phone.build("SUBSCRIBE", uri, headers=lines)
            self._call_id, self._heard = request.call_id, -1
            self.phone.watches[request.call_id] = self
            response = await self.phone.final(request)
            if response.status in (401, 407):
                request = self.phone.authorized(request, response)
                response = await self.phone.final(request)
            if response.status == 200:
                self._dialog = uac_dialog(request, response, self.phone.flow)
        if response.status != 200:
            self._forget()
        return response

    def held(self, world: "LossyWorld") -> bool:
        """True while both sides believe in it."""
        here = {dialog_id[0] for dialog_id in world.server.notifier._by_id}
        return self._call_id in self.phone.watches and self._call_id in here

    def notified(self, tx: ServerTransaction, request: Request) -> None:
        """A NOTIFY; one that another overtook says nothing new."""
        self.phone.answer(tx, 200)
        if request.cseq.number > self._heard:
            self._heard = request.cseq.number
            self.body = request.body or self.body
            if (request.headers.get("subscription-state") or "").startswith("terminated"):
                self._forget()

    def _forget(self) -> None:
        self._dialog = None
        self.phone.watches.pop(self._call_id, None)
