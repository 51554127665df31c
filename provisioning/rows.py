"""Records of the ports as rows of the tables, and back; a row's columns come in the order of `schema`."""

import hashlib
import json
from typing import Any

from sqlalchemy import Row

from protocols.records import Binding, Broadcast, Forwarding, Overlay, StoredDialog, Subscriber

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
        "contact_key": key_of(binding.contact),
        "contact": binding.contact,
        "call_id": binding.call_id,
        "cseq": binding.cseq,
        "expires_at": binding.expires_at,
        "q": binding.q,
        "flow": binding.flow,
        "path": json.dumps(binding.path),
        "instance_id": binding.instance_id,
        "user_agent": binding.user_agent,
        "received_at": binding.received_at,
    }


def to_binding(row: AnyRow) -> Binding:
    """The binding of a row."""
    aor, _, contact, call_id, cseq, expires_at, q, flow, path, *rest = row
    return Binding(aor, contact, call_id, cseq, expires_at, q, flow, tuple(json.loads(path)), *rest)


def to_forwarding(row: AnyRow) -> Forwarding:
    """The user's own forwarding of a row."""
    return Forwarding(*row[1:])


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
    }


def to_broadcast(row: AnyRow) -> Broadcast:
    """The claim of a row."""
    return Broadcast(*row)


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
