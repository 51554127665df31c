"""Paths of XCAP requests (RFC 4825 section 6): which document of whom, and which node in it.

A node selector is the small part of XPath the RFC allows: child steps by name or `*`, each with a position, a test of
one attribute, or both in this order; at the end perhaps an attribute or `namespace::*`. Prefixes are bound in the query
(RFC 4825 section 6.4); `ss` and `cp` mean what they usually do unless bound otherwise.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from sip_app.xcap.errors import XcapError

SS = "http://uri.etsi.org/ngn/params/xml/simservs/xcap"
CP = "urn:ietf:params:xml:ns:common-policy"
MAX_PATH = 2_048
MAX_STEPS = 16

_NAME = r"[A-Za-z_][A-Za-z0-9_.-]*"
_STEP = re.compile(
    rf"(?:({_NAME}):)?({_NAME}|\*)(?:\[([1-9][0-9]{{0,4}})\])?"
    rf"(?:\[@(?:({_NAME}):)?({_NAME})=(?:\"([^\"]*)\"|'([^']*)')\])?"
)
_ATTRIBUTE = re.compile(rf"@(?:({_NAME}):)?({_NAME})")
_NAMESPACES = "namespace::*"
_SLASH = re.compile(r"""((?:[^/"']|"[^"]*"|'[^']*')++)(?:/|$)""")
_BINDING = re.compile(rf"xmlns\(({_NAME})=([^()]*)\)")


@dataclass(frozen=True, slots=True)
class Step:
    """One child step. `name` is in Clark notation, `*` for any element; a test names an attribute and its value."""

    name: str
    position: int | None = None
    test: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class NodeSelector:
    """Steps from the root, and what of the last element is meant: itself, an attribute, its namespaces."""

    steps: tuple[Step, ...]
    attribute: str = ""
    namespaces: bool = False


@dataclass(frozen=True, slots=True)
class XcapPath:
    """A request's target: the application usage, the user, the document's name, and the node (None: all of it)."""

    auid: str
    user: str
    document: str
    node: NodeSelector | None


def parse_path(path: str, query: str) -> XcapPath:
    """Read the raw path and query of a request. Raises XcapError: 404 for no document, 400 for a bad selector."""
    if len(path) > MAX_PATH or len(query) > MAX_PATH:
        raise XcapError(414)
    document, separator, node = path.replace("%7E%7E", "~~").replace("%7e%7e", "~~").partition("/~~")
    parts = [unquote(part) for part in document.strip("/").split("/")]
    if len(parts) != 4 or parts[1] != "users":
        raise XcapError(404)
    auid, _, user, name = parts
    return XcapPath(auid, user, name, parse_node(unquote(node), unquote(query)) if separator else None)


def parse_node(text: str, query: str) -> NodeSelector:
    """Read a node selector, unescaped. Raises XcapError 400."""
    if not (text.isprintable() and query.isprintable()):
        raise XcapError(400, b"Characters no name may have")
    bindings = {"ss": SS, "cp": CP, **dict(_BINDING.findall(query))}
    if _BINDING.sub("", query).strip():
        raise XcapError(400, b"The query may only bind prefixes: xmlns(prefix=namespace)")
    written = _SLASH.findall(text.removeprefix("/"))
    if not written or len(written) > MAX_STEPS or "/".join(written) != text.strip("/"):
        raise XcapError(400, b"Unreadable node selector")
    steps: list[Step] = []
    for number, step in enumerate(written, 1):
        if number == len(written) and number > 1:
            if step == _NAMESPACES:
                return NodeSelector(tuple(steps), namespaces=True)
            if match := _ATTRIBUTE.fullmatch(step):
                return NodeSelector(tuple(steps), attribute=_clark(match[1], match[2], bindings, ""))
        match = _STEP.fullmatch(step)
        if match is None:
            raise XcapError(400, b"Unreadable node selector")
        prefix, name, position, test_prefix, test_name, double, single = match.groups()
        value = double if double is not None else single
        test = (_clark(test_prefix, test_name, bindings, ""), value) if test_name else None
        name = name if name == "*" and not prefix else _clark(prefix, name, bindings, SS)
        steps.append(Step(name, int(position) if position else None, test))
    return NodeSelector(tuple(steps))


def _clark(prefix: str | None, name: str, bindings: dict[str, str], default: str) -> str:
    if prefix is not None and prefix not in bindings:
        raise XcapError(400, b"Unbound prefix in the node selector")
    namespace = bindings[prefix] if prefix is not None else default
    return f"{{{namespace}}}{name}" if namespace else name
