"""Changes of a user's diversion rules as service codes ask for them (TS 22.030 section 6.5.2).

Each takes the rules as they are and returns them as they shall be; none does more than compute, for the store runs them
within a transaction. Options set by XCAP stay as they were.
"""

from collections.abc import Collection
from dataclasses import replace

from protocols.records import Condition, DiversionRule, DiversionRules
from sip_app.calls.incoming import Rejected

RULE_IDS: dict[Condition, str] = {
    "unconditional": "cfu", "busy": "cfb", "no-answer": "cfnr", "not-registered": "cfnl", "not-reachable": "cfnrc",
}  # fmt: skip
"""The names of rules nobody else named."""


def registered(
    own: DiversionRules | None, conditions: Collection[Condition], target: str, *, timer: int | None = None
) -> DiversionRules:
    """A rule for each condition to the new target, active; `timer` seconds for no reply, if given."""
    known = own or DiversionRules()
    rules = {rule.condition: rule for rule in known.rules or ()}
    taken = {rule.id for rule in rules.values()}
    for condition in conditions:
        if condition in rules:
            rules[condition] = replace(rules[condition], target=target, active=True)
        else:
            rules[condition] = DiversionRule(condition, target, id=_free(RULE_IDS[condition], taken))
    return _with(known, rules.values(), timer)


def switched(
    own: DiversionRules | None, conditions: Collection[Condition], *, active: bool, timer: int | None = None
) -> DiversionRules:
    """The registered rules of these conditions switched on or off. Raises `Rejected` 404 when there is none."""
    known = _known(own, conditions)
    rules = [
        replace(rule, active=active) if rule.condition in conditions and rule.target else rule
        for rule in known.rules or ()
    ]
    return _with(known, rules, timer) if active else replace(known, rules=tuple(rules))


def erased(own: DiversionRules | None, conditions: Collection[Condition]) -> DiversionRules:
    """Without the rules of these conditions. Raises `Rejected` 404 when there is none."""
    known = _known(own, conditions)
    timer = None if "no-answer" in conditions else known.no_reply_timer
    rules = tuple(rule for rule in known.rules or () if rule.condition not in conditions)
    return replace(known, rules=rules, no_reply_timer=timer)


def _known(own: DiversionRules | None, conditions: Collection[Condition]) -> DiversionRules:
    if own is None or not any(own.rule(condition) for condition in conditions):
        raise Rejected(404, "No Forwarding Registered")
    return own


def _with(known: DiversionRules, rules: Collection[DiversionRule], timer: int | None) -> DiversionRules:
    """The service as such is switched on with any rule of it."""
    active = None if known.active is False else known.active
    return DiversionRules(tuple(rules), known.no_reply_timer if timer is None else timer, active)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "-"
    taken.add(name)
    return name
