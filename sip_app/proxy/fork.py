"""The response context of one forwarded request (RFC 3261 section 16.7), and of a call that may be diverted further.

INVITE goes to all contacts at once; the first 2xx wins and the others are cancelled; 6xx ends the search. A `ForkUser`
hears when nobody answers, before the caller does, and may send the call elsewhere: then the branches left are
cancelled, early dialogs ended by 199 (RFC 6228), and a late answer of theirs is acknowledged and hung up.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from protocols.net import Flow
from protocols.sip.dialog import uac_dialog
from protocols.sip.errors import SipParseError
from protocols.sip.events import ClientTransaction, ServerTransaction
from protocols.sip.headers import Reason
from protocols.sip.message import Request, Response, make_response
from sip_app.calls.dialogs import new_tag
from sip_app.element.endpoint import SipEndpoint
from sip_app.metrics import limited

_CHALLENGES = ("www-authenticate", "proxy-authenticate")
_PREFERRED_4XX = (401, 407, 415, 420, 484)
_ANSWERED_ELSEWHERE = (("Reason", str(Reason("SIP", 200, "Call completed elsewhere"))),)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Nobody answered: the final status of each branch in the order sent (408 for silence, 503 for a dead way), the
    best response, and whether any phone rang."""

    statuses: tuple[int, ...]
    best: Response
    rang: bool


class ForkUser(Protocol):
    """Who may take a call away from a fork. Each is told at most once, and never after the caller gave up."""

    def redirected(self, fork: "Fork", response: Response) -> bool:
        """A phone answered 3xx. True: it is dealt with by `abandon`; else the branch counts as failed."""
        ...

    def no_reply(self, fork: "Fork") -> None:
        """A phone rang for as long as the fork has patience."""
        ...

    def failed(self, fork: "Fork", outcome: Outcome) -> bool:
        """Every branch failed. True: it is dealt with; else the caller gets the best response."""
        ...


class _Branch:
    """One place the request went to, and the other ways to it that are left."""

    __slots__ = ("early", "rang", "released", "status", "ways")

    def __init__(self, ways: Sequence[tuple[Request, Flow]]) -> None:
        self.ways = ways
        self.rang = False
        self.status: int | None = None
        self.early: set[str] = set()
        self.released: set[str] = set()


_Written = tuple[tuple[str, str, bool], ...]
"""From and To as the caller wrote them, where the request went on with others; True for a To without a tag."""


def _written(asked: Request, sent: Request) -> _Written:
    return tuple(
        [
            (name, written, name == "To" and not asked.to.tag)
            for name in ("From", "To")
            if (written := asked.headers.get(name)) is not None and sent.headers.get(name) != written
        ]
    )


def _for_caller(response: Response, written: _Written) -> Response:
    """The response as the caller gets it: without our Via, and with what he wrote."""
    headers = response.headers
    for name, value, untagged in written:
        with suppress(SipParseError):
            tag = response.to.tag if untagged else ""
            headers = headers.with_(name, f"{value};tag={tag}" if tag else value)
    return Response(response.status, response.reason, headers.with_first("Via", None), response.body)


class _Answered:
    """Passes on what is repeated of a branch's 2xx for 32 s (section 16.7 step 5): all that is left of a fork then."""

    __slots__ = ("_endpoint", "_tx", "_written")

    def __init__(self, endpoint: SipEndpoint, tx: ServerTransaction, written: _Written) -> None:
        self._endpoint, self._tx, self._written = endpoint, tx, written

    def on_response(self, response: Response, tx: ClientTransaction) -> None:
        self._endpoint.respond(self._tx, _for_caller(response, self._written))


class Fork:
    """Sends a request to several places and the best that comes back to whoever asked. `patience` is in seconds."""

    def __init__(
        self,
        endpoint: SipEndpoint,
        tx: ServerTransaction,
        user: ForkUser | None = None,
        patience: float | None = None,
        concluded: Callable[[int], object] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._tx = tx
        self._request = tx.request
        self._user = user
        self._patience = patience
        self._concluded = concluded
        self._timer: asyncio.TimerHandle | None = None
        self._branches: dict[ClientTransaction, _Branch] = {}
        self._best: Response | None = None
        self._challenges: list[tuple[str, str]] = []
        self._done = False
        self._given_up = False
        self._abandoned: Reason | None = None
        self.rang = False

    def start(self, outgoing: Sequence[Sequence[tuple[Request, Flow]]]) -> None:
        """Send every branch, each by the first of its ways."""
        if self._request.method == "INVITE":
            self._endpoint.cancellable[self._tx] = self.give_up
        for (request, flow), *ways in outgoing:
            self._branches[self._endpoint.send(request, flow, self)] = _Branch(ways)
        self._endpoint.pump()

    @property
    def statuses(self) -> tuple[int, ...]:
        """What became of each branch; 408 for one that has not answered."""
        return tuple([branch.status or 408 for branch in self._branches.values()])

    def give_up(self) -> None:
        """The caller sent CANCEL: cancel what has no final answer; the 487 comes from there."""
        self._given_up = True
        self._stop_timer()
        self._cancel_pending(())

    def abandon(self, reason: Reason) -> None:
        """The call goes elsewhere because of `reason`: nothing of these branches concerns the caller any more."""
        self._done, self._abandoned = True, reason
        self._stop_timer()
        self._endpoint.cancellable.pop(self._tx, None)
        for branch in self._branches.values():
            self._end_early(branch, reason)
        self._cancel_pending((("Reason", str(reason)),))

    def _cancel_pending(self, headers: tuple[tuple[str, str], ...]) -> None:
        if self._request.method == "INVITE":
            for tx, branch in list(self._branches.items()):
                if branch.status is None:
                    self._endpoint.cancel(tx, headers)

    def on_response(self, response: Response, tx: ClientTransaction) -> None:
        """A branch answered."""
        status = response.status
        if status == 100:
            return
        branch = self._branches[tx]
        if self._try_next(response, tx, branch):
            return
        if "via" in response.headers:
            response = _for_caller(response, _written(self._request, tx.request))
        else:
            response = make_response(self._request, 408 if status == 408 else 480, to_tag=new_tag())
        if status < 200:
            self._provisional(response, branch)
            return
        branch.status = status
        if status < 300:
            self._answered(response, tx, branch)
        elif not self._done:
            self._failed(response, branch)

    def _try_next(self, response: Response, tx: ClientTransaction, branch: _Branch) -> bool:
        """True if the branch goes on another way: this one is dead, silent or says so (RFC 5626 5.3, RFC 3263 4.3)."""
        failed = (430, 503) if "via" in response.headers or branch.rang else (408, 503)
        if response.status not in failed or not branch.ways or self._done or self._given_up:
            return False
        (request, flow), *ways = branch.ways
        again = self._endpoint.send(request, flow, self)
        followed = {tx: (again, _Branch(ways))}
        self._branches = dict(followed.get(known, (known, other)) for known, other in self._branches.items())
        self._endpoint.pump()
        return True

    def _provisional(self, response: Response, branch: _Branch) -> None:
        if self._done:
            return
        branch.rang = True
        with suppress(SipParseError):
            tag = response.to.tag
            if tag and tag not in branch.early and not self._admits(branch.early, tag):
                return
        if response.status in (180, 183) and not self.rang:
            self.rang = True
            if self._patience is not None and not self._given_up:
                self._timer = self._endpoint.loop.call_later(self._patience, self._out_of_patience)
        self._endpoint.respond(self._tx, response)

    def _admits(self, tags: set[str], tag: str) -> bool:
        """Hold one more dialog of a branch, unless it has made too many."""
        if len(tags) >= self._endpoint.settings.max_branch_dialogs:
            limited("sip.max_branch_dialogs")
            return False
        tags.add(tag)
        return True

    def _answered(self, response: Response, tx: ClientTransaction, branch: _Branch) -> None:
        if self._abandoned is not None:
            self._release(response, tx, branch, self._abandoned)
        elif not self._done or self._request.method == "INVITE":
            self._done = True
            self._stop_timer()
            if self._concluded is not None:
                self._concluded(response.status)
            self._endpoint.respond(self._tx, response)
            self._cancel_pending(_ANSWERED_ELSEWHERE)
            if tx.state == "accepted":
                written = _written(self._request, tx.request)
                self._endpoint.users[tx] = _Answered(self._endpoint, self._tx, written)
                tx.release()

    def _failed(self, response: Response, branch: _Branch) -> None:
        user = None if self._given_up else self._user
        if user is not None and 300 <= response.status < 400 and user.redirected(self, response):
            return
        if self._best is None or _rank(response.status) < _rank(self._best.status):
            self._best = response
        if response.status in (401, 407):
            self._challenges += [(name, value) for name in _CHALLENGES for value in response.headers.all(name)]
        if response.status >= 600:
            self._cancel_pending(())
        if any(other.status is None for other in self._branches.values()):
            self._end_early(branch, Reason("SIP", response.status))
            return
        self._stop_timer()
        if user is not None and user.failed(self, Outcome(self.statuses, self._best, self.rang)):
            return
        self._done = True
        final = self._final(self._best)
        if self._concluded is not None:
            self._concluded(final.status)
        self._endpoint.respond(self._tx, final)

    def _final(self, best: Response) -> Response:
        if self._given_up and best.status != 487:
            return make_response(self._request, 487, to_tag=new_tag())
        if best.status == 503:
            return Response(500, "Server Internal Error", best.headers.without("retry-after"), best.body)
        if best.status == 430:  # between an edge and us alone: no endpoint is to see it (RFC 5626 section 11.6)
            return Response(480, "Temporarily Unavailable", best.headers, best.body)
        if best.status in (401, 407):
            most = self._endpoint.settings.max_challenges
            if len(self._challenges) > most:
                limited("sip.max_challenges")
            return replace(best, headers=best.headers.without(*_CHALLENGES).add(*self._challenges[:most]))
        return best

    def _out_of_patience(self) -> None:
        self._timer = None
        if self._user is not None and not self._done and not self._given_up:
            self._user.no_reply(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_early(self, branch: _Branch, reason: Reason) -> None:
        """Tell a caller that understands it that the early dialogs of a branch are over; the call goes on."""
        request = self._request
        if "199" in request.supported and "100rel" not in request.required:
            for tag in branch.early:
                lines = (("Reason", str(reason)),)
                gone = make_response(request, 199, "Early Dialog Terminated", to_tag=tag, headers=lines)
                self._endpoint.respond(self._tx, gone)
        branch.early.clear()

    def _release(self, response: Response, tx: ClientTransaction, branch: _Branch, reason: Reason) -> None:
        """An answer that crossed our CANCEL: acknowledge it, and hang up."""
        try:
            dialog = uac_dialog(tx.request, response, tx.flow)
            beyond = response.record_routes[: len(response.record_routes) - len(tx.request.record_routes)]
        except SipParseError:
            return
        dialog = replace(dialog, route_set=tuple([str(route) for route in reversed(beyond)]))
        self._endpoint.send_stateless(dialog.ack(tx.request.cseq.number), tx.flow)
        if dialog.remote_tag not in branch.released and self._admits(branch.released, dialog.remote_tag):
            _, bye = dialog.request("BYE", headers=(("Reason", str(reason)),))
            self._endpoint.spawn(self._hang_up(bye, tx.flow))

    async def _hang_up(self, bye: Request, flow: Flow) -> None:
        await self._endpoint.request(bye, flow)


def _rank(status: int) -> tuple[int, int]:
    """How good a final response is (section 16.7 step 6), smaller is better: 6xx first, then the lowest class."""
    if status >= 600:
        return 0, 0
    group = status // 100
    if group == 4:
        return 4, 0 if status in _PREFERRED_4XX else 2 if status in (408, 480, 487) else 1
    return group, 0
