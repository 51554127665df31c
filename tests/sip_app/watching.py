"""A watcher for tests: a phone's SUBSCRIBE, its dialog, and the NOTIFYs it got, each held against its RFC's schema."""

from functools import cache
from pathlib import Path

from broadcast_world import MediaPhone, until
from lxml import etree
from ua import DOMAIN

from protocols.sip.dialog import DialogState, uac_dialog
from protocols.sip.message import Request, Response

SCHEMAS = {
    "application/conference-info+xml": "conference-info",
    "application/pidf+xml": "pidf",
    "application/dialog-info+xml": "dialog-info",
}


@cache
def schema(media_type: str) -> etree.XMLSchema:
    """The schema of a kind of state."""
    return etree.XMLSchema(etree.parse(Path(__file__).parent / "schemas" / f"{SCHEMAS[media_type]}.xsd"))


def check(media_type: str, body: bytes) -> None:
    """Raises DocumentInvalid for a document that is none of its kind."""
    schema(media_type).assertValid(etree.fromstring(body))


def subscription_state(notify: Request) -> str:
    return notify.headers.get("subscription-state") or ""


class Watch:
    """One subscription as its watcher sees it."""

    def __init__(self, phone: MediaPhone, event: str, request: Request, response: Response) -> None:
        self.phone, self.event, self.response = phone, event, response
        self.call_id = request.call_id
        self.dialog: DialogState = uac_dialog(request, response, phone.flow)

    @property
    def notifies(self) -> list[Request]:
        """The NOTIFYs so far."""
        heard = [request for request, _ in self.phone.heard if request.call_id == self.call_id]
        for notify in heard:
            if notify.body:
                check(notify.content_type, notify.body)
        return heard

    @property
    def times(self) -> list[float]:
        return [at for request, at in self.phone.heard if request.call_id == self.call_id]

    @property
    def states(self) -> list[str]:
        return [subscription_state(notify) for notify in self.notifies]

    async def told(self, count: int = 1) -> Request:
        """Wait until there were so many NOTIFYs; the last."""
        await until(lambda: len(self.notifies) >= count)
        return self.notifies[count - 1]

    async def ended(self) -> str:
        """Wait for the last NOTIFY; its Subscription-State."""
        await until(lambda: bool(self.states) and self.states[-1].startswith("terminated"))
        return self.states[-1]

    async def again(self, expires: int, **headers: str) -> Response:
        """SUBSCRIBE in the dialog."""
        lines = {"Event": self.event, "Expires": str(expires)} | headers
        self.dialog, request = self.dialog.request("SUBSCRIBE", headers=list(lines.items()))
        return await self.phone.ask(request)


async def ask(
    phone: MediaPhone, target: str, event: str | None, *, expires: int | None = None, accept: str | None = None
) -> tuple[Request, Response]:
    """A SUBSCRIBE outside dialogs, its challenge answered; what was sent and the final response."""
    lines = [("Contact", phone.contact)]
    for name, value in (("Event", event), ("Expires", expires), ("Accept", accept)):
        if value is not None:
            lines.append((name, str(value)))
    uri = target if target.startswith("sip:") else f"sip:{target}@{DOMAIN}"
    request = phone.build("SUBSCRIBE", uri, headers=lines)
    response = await phone.ask(request)
    if response.status == 407:
        request = phone.authorized(request, response)
        response = await phone.ask(request)
    return request, response


async def watch(phone: MediaPhone, target: str, event: str, **options: int | str | None) -> Watch:
    """A subscription that was accepted."""
    request, response = await ask(phone, target, event, **options)  # type: ignore[arg-type]
    assert response.status == 200, f"{response.status} {response.reason}"
    return Watch(phone, event, request, response)
