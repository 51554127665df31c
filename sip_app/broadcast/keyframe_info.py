"""Picture requests by SIP INFO (RFC 5168), both ways: a viewer's phone asks us, we ask the broadcaster's.

Section 6: whoever answers with `general_error`, or does not take such an INFO at all, is not asked again in that call.
"""

import structlog

from protocols.media_control import CONTENT_TYPE, PICTURE_FAST_UPDATE, MediaControlError, general_error, parse
from protocols.sip.message import Request, Response
from sip_app.calls.incoming import Dialog, Rejected

REFUSED = "picture-info"
"""The key under which a dialog remembers that its peer cannot be asked this way."""
_NEVER = frozenset((405, 415, 469, 489, 501))

log = structlog.get_logger()


def read_info(dialog: Dialog, request: Request) -> bool:
    """True if this INFO asks for a full picture. An empty one is a keep-alive.

    Raises `Rejected`: 415 for another content type, 400 with a `general_error` for a document that is none.
    """
    if not request.body:
        return False
    if request.content_type != CONTENT_TYPE:
        raise Rejected(415, headers=(("Accept", CONTENT_TYPE),))
    try:
        said = parse(request.body)
    except MediaControlError as error:
        raise Rejected(400, "Not Media Control", body=general_error(str(error)), content_type=CONTENT_TYPE) from None
    if said == "error":
        dialog.app[REFUSED] = "yes"
    elif said == "other":
        log.debug("info.unknown_command", call_id=request.call_id)
    return said == "picture"


async def ask_picture(dialog: Dialog) -> None:
    """Ask the phone at the other end for a full picture, unless it has said that it cannot be asked this way."""
    if REFUSED in dialog.app:
        return
    response = await dialog.ask("INFO", PICTURE_FAST_UPDATE, CONTENT_TYPE)
    if response.status in _NEVER or _reports_error(response):
        dialog.app[REFUSED] = "yes"
        log.info("info.refused", call_id=dialog.state.call_id, status=response.status)


def _reports_error(response: Response) -> bool:
    try:
        return response.content_type == CONTENT_TYPE and parse(response.body) == "error"
    except MediaControlError:
        return False
