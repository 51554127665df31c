"""Harnesses of XCAP (TS 24.623): paths with their node selectors, documents, and parts put into a document."""

from contextlib import suppress
from dataclasses import replace

from fuzz.target import Target, must_be_small, must_equal
from protocols.records import DiversionRule, DiversionRules
from sip_app.xcap.document import parse_document, read, render, schema_problem, to_bytes
from sip_app.xcap.editing import delete, found, put
from sip_app.xcap.errors import XcapError
from sip_app.xcap.selector import parse_path

RULES = DiversionRules(
    (DiversionRule("busy", "1002@d", True, "b"), DiversionRule("unconditional", "1@d", False, "u")), 20, True
)
_PATH = "/simservs.ngn.etsi.org/users/sip:1001@d/simservs.xml/~~/"
_TYPES = ("application/xcap-el+xml", "application/xcap-att+xml", "application/vnd.etsi.simservs+xml")


def read_document(data: bytes) -> None:
    """A document put: if it is taken, it is the same after writing."""
    with suppress(XcapError):
        root = parse_document(data, 20)
        if schema_problem(root) is None:
            rules = read(root)
            written = to_bytes(render(rules), declaration=True)
            must_be_small(written, data)
            must_equal(_kept(read(parse_document(written, 20))), _kept(rules))


def _kept(rules: DiversionRules) -> DiversionRules:
    """The rules without their targets: what is read are URIs, what is written are keys (the server's to convert)."""
    return replace(rules, rules=rules.rules and tuple([replace(rule, target="") for rule in rules.rules]))


def read_part(data: bytes) -> None:
    """A path and, behind a line break, what is put there; then it is asked for and deleted."""
    path, _, body = data.partition(b"\n")
    text, _, query = path.decode("utf-8", "replace").partition("?")
    with suppress(XcapError):
        node = parse_path(_PATH + text, query).node
        for media_type in _TYPES:
            with suppress(XcapError):
                after, _ = put(RULES, node, body, media_type, 20)
                must_be_small(to_bytes(render(after)), data)
                found(after, node)
        with suppress(XcapError):
            found(RULES, node)
        delete(RULES, node)


_RULE = b'communication-diversion/cp:ruleset/cp:rule[@id="b"]'
TARGETS = (
    Target(
        "xcap-document",
        read_document,
        lambda: [to_bytes(render(RULES), declaration=True), to_bytes(render(DiversionRules(service=False)))],
        16_384,
    ),
    Target(
        "xcap-part",
        read_part,
        lambda: [
            b"simservs/" + _RULE + b"/@id\nx",
            b"simservs/" + _RULE + b'/cp:conditions\n<cp:conditions xmlns:cp="urn:ietf:params:xml:ns:common-policy"/>',
            b"simservs/communication-diversion/NoReplyTimer?xmlns(a=b)\n<NoReplyTimer>30</NoReplyTimer>",
            b"a:*[1]/*[2]/namespace::*?xmlns(a=http://uri.etsi.org/ngn/params/xml/simservs/xcap)\n",
        ],
        8192,
    ),
)
