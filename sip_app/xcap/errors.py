"""What an XCAP request is refused with (RFC 4825 sections 8 and 11): a status, and for 409 a report."""

from typing import Any, Literal

from lxml import etree

ERROR_TYPE = "application/xcap-error+xml"
_NAMESPACE = "urn:ietf:params:xml:ns:xcap-error"
_PREFIXES: Any = {None: _NAMESPACE}  # the stubs know no default namespace
Conflict = Literal[
    "not-well-formed",
    "xml-frag-not-well-formed",
    "not-xml-att-value",
    "not-utf-8",
    "no-parent",
    "cannot-insert",
    "cannot-delete",
    "schema-validation-error",
    "constraint-failure",
]


class XcapError(ValueError):
    """The answer to a request that cannot be carried out, with its body."""

    def __init__(self, status: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"XCAP {status}")
        self.status = status
        self.body = body
        self.headers = headers


def conflict(kind: Conflict, phrase: str = "", *, ancestor: str = "") -> XcapError:
    """409 with its report; `ancestor` is the path of the nearest parent there is, for `no-parent`."""
    report = etree.Element(f"{{{_NAMESPACE}}}xcap-error", nsmap=_PREFIXES)
    detail = etree.SubElement(report, f"{{{_NAMESPACE}}}{kind}")
    if phrase:
        detail.set("phrase", "".join(character if character.isprintable() else " " for character in phrase)[:200])
    if ancestor:
        etree.SubElement(detail, f"{{{_NAMESPACE}}}ancestor").text = ancestor
    body = etree.tostring(report, xml_declaration=True, encoding="UTF-8")
    return XcapError(409, body, (("Content-Type", ERROR_TYPE),))
