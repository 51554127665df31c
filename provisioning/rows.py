"""Records of the ports as rows of the tables, and back; a row's columns come in the order of `schema`."""

import hashlib
import json
from dataclasses import fields
from typing import Any

from sqlalchemy import Row

from protocols.records import (
    Binding,
    Broadcast,
    Channel,
    DiversionRule,
    DiversionRules,
    Overlay,
    StoredDialog,
    Subscriber,
)

AnyRow = Row[*tuple[Any, ...]]


def key_of(text: str) -> str:
    """A fixed-length key for text that may be too long for an index: 128 bits, hexadecimal."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def subscriber_row(subscriber: Subscriber) -> dict[str, Any]:
    """The row of an account."""
    return {
        "aor": subscriber.aor,
        "number": subscriber.number,
        "realm": subscriber.realm,
        "ha1": json.dumps(dict(subscriber.ha1)),
        "display_name": subscriber.display_name,
        "enabled": subscriber.enabled,
    }


def to_subscriber(row: AnyRow) -> Subscriber:
    """The account of a row."""
    aor, number, realm, ha1, display_name, enabled = row
    return Subscriber(aor, number, realm, tuple(json.loads(ha1).items()), display_name, enabled)


def binding_row(aor: str, binding: Binding) -> dict[str, Any]:
    """The row of a binding."""
    return {
        "aor": aor,
        "contact_key": key_of(binding.key),
        "contact": binding.contact,
        "call_id": binding.call_id,
        "cseq": binding.cseq,
        "expires_at": binding.expires_at,
        "q": binding.q,
        "flow": binding.flow,
        "path": json.dumps(binding.path) if binding.path else "[]",
        "instance_id": binding.instance_id,
        "user_agent": binding.user_agent,
        "received_at": binding.received_at,
    }


def to_binding(row: AnyRow) -> Binding:
    """The binding of a row."""
    aor, _, contact, call_id, cseq, expires_at, q, flow, path, *rest = row
    return Binding(aor, contact, call_id, cseq, expires_at, q, flow, tuple(json.loads(path)), *rest)


def diversions_row(aor: str, rules: DiversionRules) -> dict[str, Any]:
    """The row of a user's diversions: what was never set is left out."""
    stored = _set_fields(rules)
    if rules.rules is not None:
        stored["rules"] = [_set_fields(rule) for rule in rules.rules]
    return {"aor": aor, "rules": json.dumps(stored, separators=(",", ":"))}


def to_diversions(row: AnyRow) -> DiversionRules:
    """A user's diversions of a row."""
    stored = json.loads(row[1])
    if "rules" in stored:
        stored["rules"] = tuple(DiversionRule(**rule) for rule in stored["rules"])
    return DiversionRules(**stored)


def _set_fields(value: DiversionRules | DiversionRule) -> dict[str, Any]:
    return {field.name: kept for field in fields(value) if (kept := getattr(value, field.name)) != field.default}


def to_overlay(row: AnyRow) -> Overlay:
    """The broadcast overlay of a row."""
    return Overlay(*row[1:])


def broadcast_row(broadcast: Broadcast) -> dict[str, Any]:
    """The row of a claim."""
    return {
        "aor": broadcast.channel,
        "epoch": broadcast.epoch,
        "as_id": broadcast.as_id,
        "relay_id": broadcast.relay_id,
        "state": broadcast.state,
        "lease_until": broadcast.lease_until,
        "opened_at": broadcast.opened_at,
        "media": broadcast.media,
        "leg_id": broadcast.leg_id,
        "service": broadcast.service,
    }


def to_broadcast(row: AnyRow) -> Broadcast:
    """The claim of a row."""
    return Broadcast(*row)


def channel_row(aor: str, channel: Channel) -> dict[str, Any]:
    """The row of a channel's settings."""
    return {
        "aor": aor,
        "private": channel.private,
        "listed": json.dumps(sorted(channel.listed)),
        "pin": channel.pin,
    }


def to_channel(row: AnyRow) -> Channel:
    """The channel's settings of a row."""
    _, private, listed, pin = row
    return Channel(private, frozenset(json.loads(listed)), pin)


def dialog_row(dialog: StoredDialog) -> dict[str, Any]:
    """The row of a dialog."""
    return {
        "dialog_key": key_of(dialog.dialog_id),
        "dialog_id": dialog.dialog_id,
        "as_id": dialog.as_id,
        "group_id": dialog.group_id,
        "state": dialog.state,
    }


def to_dialog(row: AnyRow) -> StoredDialog:
    """The dialog of a row."""
    return StoredDialog(*row[1:])
