"""One XCAP request carried out on a document (RFC 4825 sections 7 and 8): find a node, put one, delete one.

A change must leave a valid document, and the path must mean afterwards what it was used for: after a PUT what was put,
after a DELETE nothing.
"""

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from lxml import etree

from protocols.records import DiversionRules
from sip_app.xcap.document import DOCUMENT_TYPE, check_kept, parse_document, read, render, schema_problem, to_bytes
from sip_app.xcap.errors import XcapError, conflict
from sip_app.xcap.selector import CP, SS, NodeSelector, Step

ELEMENT_TYPE = "application/xcap-el+xml"
ATTRIBUTE_TYPE = "application/xcap-att+xml"
NAMESPACE_TYPE = "application/xcap-ns+xml"
_WRAPPED = f'<x xmlns="{SS}" xmlns:ss="{SS}" xmlns:cp="{CP}">'.encode(), b"</x>"


def found(rules: DiversionRules, node: NodeSelector | None) -> tuple[bytes, str]:
    """The node as it is answered, and its media type. Raises XcapError 404."""
    root = render(rules)
    if node is None:
        return to_bytes(root, declaration=True), DOCUMENT_TYPE
    element = _select(root, node.steps)
    if element is None:
        raise XcapError(404)
    if node.namespaces:
        prefixes: Any = element.nsmap
        return to_bytes(etree.Element(element.tag, nsmap=prefixes)), NAMESPACE_TYPE
    if not node.attribute:
        return to_bytes(element), ELEMENT_TYPE
    value = element.get(node.attribute)
    if value is None:
        raise XcapError(404)
    return escape(value, {'"': "&quot;"}).encode(), ATTRIBUTE_TYPE


def put(
    rules: DiversionRules, node: NodeSelector | None, body: bytes, media_type: str, max_depth: int
) -> tuple[DiversionRules, bool]:
    """The rules after a PUT, their new targets still URIs, and whether it made something new. Raises XcapError."""
    if node is None:
        _expect(media_type, DOCUMENT_TYPE, "application/xml")
        return _valid(parse_document(body, max_depth)), False
    root = render(rules)
    if node.namespaces:
        raise XcapError(405, headers=(("Allow", "GET, HEAD"),))
    if node.attribute:
        _expect(media_type, ATTRIBUTE_TYPE)
        new = _put_attribute(root, node, body)
    else:
        _expect(media_type, ELEMENT_TYPE)
        new, root = _put_element(root, node.steps, _fragment(body, max_depth))
    after = _valid(root)
    if _select(render(after), node.steps) is None:
        raise conflict("cannot-insert", "The path would not lead to what was put")
    return after, new


def delete(rules: DiversionRules, node: NodeSelector | None) -> DiversionRules | None:
    """The rules after a DELETE; None for the document as it is without any. Raises XcapError: 404, or 409 if the rest
    would be no valid document."""
    if node is None:
        return None
    root = render(rules)
    if node.namespaces:
        raise XcapError(405, headers=(("Allow", "GET, HEAD"),))
    element = _select(root, node.steps)
    if element is None or (node.attribute and element.get(node.attribute) is None):
        raise XcapError(404)
    parent = element.getparent()
    if node.attribute:
        del element.attrib[node.attribute]
    elif parent is None:
        raise conflict("cannot-delete", "The root goes with its document")
    else:
        parent.remove(element)
    after = _valid(root)
    left = _select(render(after), node.steps)
    if left is not None and (not node.attribute or left.get(node.attribute) is not None):
        raise conflict("cannot-delete", "The path would lead to something else")
    return after


def _expect(media_type: str, *wanted: str) -> None:
    if media_type not in wanted:
        raise XcapError(415, headers=(("Accept", ", ".join(wanted)),))


def _valid(root: etree._Element) -> DiversionRules:
    check_kept(root)
    problem = schema_problem(root)
    if problem is not None:
        raise conflict("schema-validation-error", problem)
    return read(root)


def _select(root: etree._Element, steps: Sequence[Step]) -> etree._Element | None:
    """The one element the steps lead to, or None."""
    level = [root]
    for number, step in enumerate(steps):
        candidates = level if number == 0 else [child for element in level for child in element]
        matching = [element for element in candidates if step.name in ("*", element.tag)]
        if step.position is not None:
            matching = matching[step.position - 1 : step.position]
        if step.test is not None:
            matching = [element for element in matching if element.get(step.test[0]) == step.test[1]]
        if len(matching) != 1:
            return None
        level = matching
    return level[0]


def _fragment(body: bytes, max_depth: int) -> etree._Element:
    """The one element of a body; it may use the document's prefixes without declaring them."""
    bare = body.strip()
    if bare.startswith(b"<?xml"):
        bare = bare.partition(b"?>")[2]
    whole = parse_document(_WRAPPED[0] + bare + _WRAPPED[1], max_depth + 1, "xml-frag-not-well-formed")
    if len(whole) != 1 or (whole.text or "").strip() or (whole[0].tail or "").strip():
        raise conflict("xml-frag-not-well-formed", "Not exactly one element")
    return whole[0]


def _put_attribute(root: etree._Element, node: NodeSelector, body: bytes) -> bool:
    element = _select(root, node.steps)
    if element is None:
        raise conflict("no-parent", ancestor=_ancestor(root, node.steps))
    new = element.get(node.attribute) is None
    element.set(node.attribute, _attribute_value(body))
    return new


def _attribute_value(body: bytes) -> str:
    """The value a body holds as it would stand between double quotes."""
    if b'"' in body:
        raise conflict("not-xml-att-value")
    whole = parse_document(b'<x a="' + body + b'"/>', 1, "not-xml-att-value")
    return whole.get("a", "")


def _put_element(root: etree._Element, steps: Sequence[Step], fragment: etree._Element) -> tuple[bool, etree._Element]:
    last = steps[-1]
    if last.name not in ("*", fragment.tag) or (last.test and fragment.get(last.test[0]) != last.test[1]):
        raise conflict("cannot-insert", "The element is not the one the path names")
    known = _select(root, steps)
    if known is not None:
        parent = known.getparent()
        if parent is None:
            return False, fragment
        parent.replace(known, fragment)
        return False, root
    parent = _select(root, steps[:-1]) if len(steps) > 1 else None
    if parent is None:
        raise conflict("no-parent", ancestor=_ancestor(root, steps[:-1]))
    same = [number for number, child in enumerate(parent) if child.tag == fragment.tag]
    if last.position is not None and last.position != len(same) + 1:
        raise conflict("cannot-insert", "There is no such position")
    for index in [same[-1] + 1] if same else range(len(parent), -1, -1):
        parent.insert(index, fragment)
        if schema_problem(root) is None:
            return True, root
        parent.remove(fragment)
    parent.insert(same[-1] + 1 if same else len(parent), fragment)
    return True, root  # valid nowhere: the schema says why


def _ancestor(root: etree._Element, steps: Sequence[Step]) -> str:
    """The path of the deepest element that is there, as `~~/simservs/...` without prefixes."""
    for length in range(len(steps), 0, -1):
        if _select(root, steps[:length]) is not None:
            return "~~/" + "/".join(step.name.rpartition("}")[2] for step in steps[:length])
    return "~~"
