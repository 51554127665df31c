"""Picture fast update in an INFO body (RFC 5168), for phones that know neither PLI nor FIR: read strictly, written.

Read by lxml with a DTD, entities and the network all refused, and never more than `MAX_BYTES` of it.
"""

from typing import Literal
from xml.sax.saxutils import escape

from lxml import etree

CONTENT_TYPE = "application/media_control+xml"
MAX_BYTES = 4_096
_HEAD = '<?xml version="1.0" encoding="utf-8"?>\r\n'
PICTURE_FAST_UPDATE = (
    f"{_HEAD}<media_control><vc_primitive><to_encoder><picture_fast_update/></to_encoder></vc_primitive>"
    "</media_control>\r\n"
).encode()


class MediaControlError(ValueError):
    """An INFO body is no media control document; the message says why."""


def general_error(text: str) -> bytes:
    """The document that says why a command was not carried out (section 6)."""
    return f"{_HEAD}<media_control><general_error>{escape(text)}</general_error></media_control>\r\n".encode()


def parse(body: bytes) -> Literal["picture", "error", "other"]:
    """What the document says: a full picture is wanted, a command of ours failed, or something not known here.

    Raises MediaControlError for anything that is not such a document.
    """
    if len(body) > MAX_BYTES:
        raise MediaControlError("too large")
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise MediaControlError("not well-formed XML") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise MediaControlError("a document type is not taken")
    names = [etree.QName(element).localname for element in root.iter(etree.Element)]
    if names[0] != "media_control":
        raise MediaControlError("not a media_control document")
    if "general_error" in names:
        return "error"
    below = ["vc_primitive", "to_encoder", "picture_fast_update"]
    found: list[etree._Element] = [root]
    for name in below:
        found = [child for parent in found for child in parent if _named(child, name)]
    return "picture" if found else "other"


def _named(element: etree._Element, name: str) -> bool:
    return isinstance(element.tag, str) and etree.QName(element).localname == name
