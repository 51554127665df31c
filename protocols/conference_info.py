"""Conference state (RFC 4575): who is in a broadcast, as a document for the broadcaster or, without names, for viewers.

A roster may be too long for one message: `document` takes as many users as fit and says which, and partial documents
with rising versions bring the others, those who change and those who leave.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

CONTENT_TYPE = "application/conference-info+xml"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call of a user. `since` is its beginning as RFC 3339 writes it, in UTC."""

    entity: str
    since: str
    status: Literal["connected", "on-hold", "disconnected"] = "connected"


@dataclass(frozen=True, slots=True)
class User:
    """A participant: its address, the name it shows, its part, its calls."""

    entity: str
    display_text: str
    role: Literal["broadcaster", "viewer"]
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Conference:
    """What all watchers may know: `entity` the conference URI, how many users there are and may be, the broadcaster
    being one, and `uris`, by which else it can be reached."""

    entity: str
    title: str
    user_count: int
    maximum_user_count: int
    uris: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One document, and which users it told of."""

    body: bytes
    told: tuple[User, ...]
    gone: tuple[str, ...]


def readable(text: str, longest: int = 64) -> str:
    """Text of a stranger as it may stand in XML and on a display: no control characters, bounded."""
    return "".join(char for char in text if char.isprintable())[:longest]


def deleted(entity: str, version: int) -> bytes:
    """The document that says the conference is over."""
    return _document(entity, version, "deleted", "")


def document(
    conference: Conference,
    version: int,
    state: Literal["full", "partial"],
    users: Mapping[str, User],
    gone: tuple[str, ...] = (),
    *,
    budget: int,
) -> Part:
    """The state with as many of `users` (to be told) and `gone` (entities that left) as `budget` bytes hold.

    At least one of them is always told, so that a budget too small for anything still gets on.
    """
    description = f"<display-text>{escape(conference.title)}</display-text>"
    if conference.uris:
        entries = [
            f"<entry><uri>{escape(uri)}</uri><purpose>participation</purpose></entry>" for uri in conference.uris
        ]
        description += f"<conf-uris>{''.join(entries)}</conf-uris>"
    description += f"<maximum-user-count>{conference.maximum_user_count}</maximum-user-count>"
    inner = f"<conference-description>{description}</conference-description>" if state == "full" else ""
    inner += f"<conference-state><user-count>{conference.user_count}</user-count><active>true</active>"
    inner += "</conference-state>"
    left = budget - len(_document(conference.entity, version, state, inner)) - 40
    lines: list[str] = []
    told: list[User] = []
    went: list[str] = []
    for entity in gone:
        line = f'<user entity={quoteattr(entity)} state="deleted"/>'
        if lines and len(line.encode()) > left:
            break
        lines.append(line)
        went.append(entity)
        left -= len(line.encode())
    else:
        for user in users.values():
            line = _user(user)
            if lines and len(line.encode()) > left:
                break
            lines.append(line)
            told.append(user)
            left -= len(line.encode())
    if lines:
        how = ' state="partial"' if state == "partial" else ""
        inner += f"<users{how}>{''.join(lines)}</users>"
    return Part(_document(conference.entity, version, state, inner), tuple(told), tuple(went))


def _document(entity: str, version: int, state: str, inner: str) -> bytes:
    opening = f'<conference-info xmlns="urn:ietf:params:xml:ns:conference-info" entity={quoteattr(entity)}'
    return f'{_HEAD}{opening} state="{state}" version="{version}">{inner}</conference-info>\n'.encode()


def _user(user: User) -> str:
    inner = f"<display-text>{escape(user.display_text)}</display-text>"
    inner += f"<roles><entry>{user.role}</entry></roles>"
    for endpoint in user.endpoints:
        inner += f"<endpoint entity={quoteattr(endpoint.entity)}><status>{endpoint.status}</status>"
        inner += "<joining-method>dialed-in</joining-method>"
        inner += f"<joining-info><when>{escape(endpoint.since)}</when></joining-info></endpoint>"
    return f'<user entity={quoteattr(user.entity)} state="full">{inner}</user>'
