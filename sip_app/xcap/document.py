"""The simservs document (3GPP TS 24.623) of a user's diversions (TS 24.604 clause 4.9): rendered, and read back.

What comes from a stranger is parsed by lxml with everything dangerous off: a DOCTYPE is refused before parsing, so
there are no entities to expand, no DTD and nothing to fetch; size and depth are bounded. (defusedxml's own wrapper of
lxml is deprecated, and lxml's options are what it would set.)
"""

from functools import cache
from pathlib import Path
from typing import Any, cast

from lxml import etree

from protocols.records import Condition, DiversionRule, DiversionRules, Reveal
from protocols.sip.errors import SipParseError
from protocols.sip.uri import parse_uri
from sip_app.metrics import limited
from sip_app.xcap.errors import Conflict, conflict
from sip_app.xcap.selector import CP, SS

DOCUMENT_TYPE = "application/vnd.etsi.simservs+xml"
CAPABILITIES_TYPE = "application/xcap-caps+xml"
_HINTS = "{http://www.w3.org/2001/XMLSchema-instance}"
_CAPS = "urn:ietf:params:xml:ns:xcap-caps"
_SCHEMA = Path(__file__).parent / "schema" / "simservs.xsd"
_PREFIXES: Any = {None: SS, "cp": CP}  # the stubs know no default namespace
_CONDITIONS: tuple[Condition, ...] = ("busy", "no-answer", "not-registered", "not-reachable")
_YES = {"true": True, "1": True, "false": False, "0": False}
_BOOLEANS = ("notify-caller", "notify-served-user", "notify-served-user-on-outbound-call")
_OPTIONS = (
    "notify-caller",
    "reveal-identity-to-caller",
    "reveal-served-user-identity-to-caller",
    "notify-served-user",
    "notify-served-user-on-outbound-call",
    "reveal-identity-to-target",
)
"""The elements after `target`, in the schema's order; each is the field of `DiversionRule` of the same name."""


@cache
def _schema() -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(str(_SCHEMA)))


def capabilities(*auids: str) -> bytes:
    """The document every XCAP server has (RFC 4825 section 12): what it knows."""
    root = etree.Element(f"{{{_CAPS}}}xcap-caps", nsmap={"c": _CAPS})
    for group, name, values in (
        ("auids", "auid", auids),
        ("extensions", "extension", ()),
        ("namespaces", "namespace", (_CAPS, SS, CP)),
    ):
        parent = etree.SubElement(root, f"{{{_CAPS}}}{group}")
        for value in values:
            etree.SubElement(parent, f"{{{_CAPS}}}{name}").text = value
    return to_bytes(root, declaration=True)


def parse_document(body: bytes, max_depth: int, problem: Conflict = "not-well-formed") -> etree._Element:
    """The root element of a document from the network. Raises XcapError 409 (`problem`, or not-utf-8)."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise conflict("not-utf-8") from None
    if "<!DOCTYPE" in text:
        raise conflict(problem, "A DOCTYPE is not allowed")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        raise conflict(problem, str(error)) from None
    level, depth = [root], 1
    while level := [child for element in level for child in element]:
        depth += 1
        if depth > max_depth:
            limited("xcap.max_depth")
            raise conflict(problem, f"More than {max_depth} elements within each other")
    return root


def check_kept(root: etree._Element) -> None:
    """Raises XcapError 409 naming what a document may hold and this server would have to forget or not act on.

    A service that is kept and not rendered would be worse: a user who restricts their identity must be able to rely on
    it.
    """
    services = list(root) if root.tag == _ss("simservs") else []
    for element in services:
        if element.tag != _ss("communication-diversion"):
            name = etree.QName(element).localname
            raise conflict("constraint-failure", f"{name}: this server offers communication-diversion only")
    for element in (root, *services):
        for attribute in element.attrib:
            if (element is root or attribute != "active") and not str(attribute).startswith(_HINTS):
                name = etree.QName(attribute).localname
                raise conflict("constraint-failure", f"{name}: an attribute this server cannot keep")


def schema_problem(root: etree._Element) -> str | None:
    """What the schema finds wrong with the document, or None."""
    try:
        _schema().assertValid(root)
    except etree.DocumentInvalid as error:
        return str(error)
    return None


def render(rules: DiversionRules) -> etree._Element:
    """The document of these rules; the same rules always give the same bytes."""
    root = etree.Element(_ss("simservs"), nsmap=_PREFIXES)
    if not rules.service:
        return root
    service = etree.SubElement(root, _ss("communication-diversion"))
    if rules.active is not None:
        service.set("active", _bool(rules.active))
    if rules.no_reply_timer is not None:
        etree.SubElement(service, _ss("NoReplyTimer")).text = str(rules.no_reply_timer)
    if rules.rules is not None:
        ruleset = etree.SubElement(service, _cp("ruleset"))
        for rule in rules.rules:
            _render_rule(ruleset, rule)
    return root


def _render_rule(ruleset: etree._Element, rule: DiversionRule) -> None:
    element = etree.SubElement(ruleset, _cp("rule"), id=rule.id or f"rule-{rule.condition}")
    conditions = etree.SubElement(element, _cp("conditions"))
    if not rule.active:
        etree.SubElement(conditions, _ss("rule-deactivated"))
    if rule.condition != "unconditional":
        etree.SubElement(conditions, _ss(rule.condition))
    forward = etree.SubElement(etree.SubElement(element, _cp("actions")), _ss("forward-to"))
    etree.SubElement(forward, _ss("target")).text = f"sip:{rule.target}" if rule.target else None
    for option in _OPTIONS:
        value: bool | str | None = getattr(rule, option.replace("-", "_"))
        if value is not None:
            etree.SubElement(forward, _ss(option)).text = _bool(value) if isinstance(value, bool) else value


def read(root: etree._Element) -> DiversionRules:
    """The rules of a valid document, their targets still URIs. Raises XcapError 409 for what cannot be kept."""
    service = root.find(_ss("communication-diversion"))
    if service is None:
        return DiversionRules(service=False)
    if len(root) > 1:
        raise conflict("constraint-failure", "More than one communication-diversion")
    active, timer, ruleset = service.get("active"), service.find(_ss("NoReplyTimer")), service.find(_cp("ruleset"))
    rules = None if ruleset is None else tuple([_read_rule(rule) for rule in ruleset])
    conditions = [rule.condition for rule in rules or ()]
    if len(set(conditions)) < len(conditions):
        raise conflict("constraint-failure", "More than one rule for a condition")
    return DiversionRules(
        rules,
        None if timer is None else int(_text(timer)),
        None if active is None else _YES[active.strip()],
    )


def _read_rule(rule: etree._Element) -> DiversionRule:
    found: list[Condition] = []
    active = True
    for element in rule.iterfind(f"{_cp('conditions')}/*"):
        name = element.tag
        condition = next((known for known in _CONDITIONS if name == _ss(known)), None)
        if condition is not None:
            found.append(condition)
        elif name == _ss("rule-deactivated"):
            active = False
        else:
            raise conflict("constraint-failure", "A condition this server does not know")
    if len(found) > 1:
        raise conflict("constraint-failure", "Conditions that never hold together")
    actions = rule.findall(f"{_cp('actions')}/*")
    if len(actions) != 1 or actions[0].tag != _ss("forward-to") or rule.find(_cp("transformations")) is not None:
        raise conflict("constraint-failure", "A rule forwards to one target and does nothing else")
    options: dict[str, bool | Reveal] = {}
    target, *settings = actions[0]
    for element in settings:
        name = etree.QName(element).localname
        value = _text(element) or ("false" if name.startswith("notify-served") else "true")
        options[name.replace("-", "_")] = _YES[value] if name in _BOOLEANS else cast(Reveal, value)
    uri = _text(target)
    try:
        if uri or active:  # phones write an empty target into a rule that is off
            parse_uri(uri)
    except SipParseError:
        raise conflict("constraint-failure", "A target that is no SIP or telephone URI") from None
    condition = found[0] if found else "unconditional"
    return DiversionRule(condition, uri, active, (rule.get("id") or "").strip(), **options)  # type: ignore[arg-type]  # by the schema


def to_bytes(element: etree._Element, *, declaration: bool = False) -> bytes:
    """An element as it goes out."""
    return etree.tostring(element, encoding="UTF-8", xml_declaration=declaration, with_tail=False)


def _text(element: etree._Element) -> str:
    return (element.text or "").strip()


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _ss(name: str) -> str:
    return f"{{{SS}}}{name}"


def _cp(name: str) -> str:
    return f"{{{CP}}}{name}"
