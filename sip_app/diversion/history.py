"""History-Info as different readers may see it (RFC 7044 section 10.1, RFC 3323): whole, or in part anonymous.

An entry whose URI carries the escaped header `Privacy=history` is private: a trusted peer gets it as it is, everybody
else sees `anonymous@anonymous.invalid` in its place, index and cause kept. A request's own `Privacy: history` (or
`header`) makes all its entries private.
"""

from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import quote

from protocols.sip.headers import DiversionEntry, HistoryEntry, Reason
from protocols.sip.message import Request, Response
from protocols.sip.uri import SipUri

Lines = tuple[tuple[str, str], ...]
_PRIVATE = ("Privacy", "history")
_HIDING = frozenset(("history", "header"))
_ANONYMOUS = frozenset(("id", "user", "header"))


def is_private(entry: HistoryEntry) -> bool:
    """True for an entry marked `Privacy=history`."""
    headers = entry.uri.headers if isinstance(entry.uri, SipUri) else ()
    return any(name.lower() == "privacy" and "history" in value.lower() for name, value in headers)


def made_private(entry: HistoryEntry) -> HistoryEntry:
    """The entry, marked so that only the trusted may read it."""
    if is_private(entry) or not isinstance(entry.uri, SipUri):
        return entry
    return replace(entry, uri=replace(entry.uri, headers=(*entry.uri.headers, _PRIVATE)))


def with_reason(entry: HistoryEntry, status: int) -> HistoryEntry:
    """The entry of a place that was tried in vain, with the response it ended in (RFC 7044 section 10.2)."""
    if not isinstance(entry.uri, SipUri):
        return entry
    return replace(entry, uri=replace(entry.uri, headers=(*entry.uri.headers, ("Reason", _escaped(status)))))


def wants_privacy(request: Request) -> bool:
    """True if the caller asked that nobody untrusted sees the history (RFC 3323 section 4.2, RFC 7044)."""
    return not _HIDING.isdisjoint(_privacy(request))


def wants_anonymity(request: Request) -> bool:
    """True if the caller does not want to be named (RFC 3323, RFC 3325 section 9.3)."""
    return not _ANONYMOUS.isdisjoint(_privacy(request))


def _privacy(request: Request) -> set[str]:
    return {part.strip().lower() for value in request.headers.all("privacy") for part in value.split(";")}


def history_lines(entries: Iterable[HistoryEntry], *, trusted: bool, hidden: bool = False) -> Lines:
    """The History-Info lines for one reader; `hidden` makes every entry private."""
    return tuple(
        [
            ("History-Info", str(entry if trusted else _shown(entry, hidden=hidden or is_private(entry))))
            for entry in entries
        ]
    )


def with_history(response: Response, lines: Lines, asked: bool) -> Response:
    """A response to a diverted call, with what its caller may know in the place of what the target told.

    A 181 always says it; others say it to a caller that `asked` for it by `histinfo` (RFC 7044 section 5).
    """
    wanted = response.status == 181 or asked
    headers = response.headers.without("history-info")
    return replace(response, headers=headers.add(*lines) if wanted else headers)


def diversion_lines(entries: Iterable[DiversionEntry], *, trusted: bool) -> Lines:
    """The Diversion lines (RFC 5806), for peers that know no History-Info; strangers get none."""
    return tuple([("Diversion", str(entry)) for entry in entries]) if trusted else ()


def _shown(entry: HistoryEntry, *, hidden: bool) -> HistoryEntry:
    if not hidden:
        return entry
    uri = entry.uri
    params, headers = (uri.params, uri.headers) if isinstance(uri, SipUri) else ((), ())
    cause = tuple(item for item in params if item[0] == "cause")
    reasons = tuple(item for item in headers if item[0].lower() == "reason")
    return replace(entry, uri=SipUri("anonymous.invalid", "anonymous", params=cause, headers=reasons))


def _escaped(status: int) -> str:
    return quote(str(Reason("SIP", status)), safe="")
