"""Call records: one for each broadcast and each view, written at its answer and at its end.

An observer of `Broadcasting`. What a call's media came to is told by the relay when the leg is removed, just before or
after the call's end is known here: a record waits for it a moment, then is written without. Calls that a restarted
server holds again keep their record; records of calls it does not are ended by `resume`.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from protocols.call_record import CallRecord, EndedBy
from protocols.control import LegReport, LegReports
from protocols.sip.errors import SipParseError
from protocols.sip.headers import Reason
from sip_app.broadcast.ending import ENDED
from sip_app.broadcast.group import Broadcasting, LiveGroup, Viewer
from sip_app.broadcast.relay_link import CALL_TIMEOUT
from sip_app.ports import CallRecords

RESTARTED = "Server restart"
CLEARING, FAILURE, TIMER = 16, 41, 102
"""Causes of ITU-T Q.850."""
_DIALOG_ENDS = {
    "bye": (CLEARING, "Hung up"),
    "session-expired": (TIMER, "Session expired"),
    "ack-timeout": (TIMER, "No ACK"),
}
"""What a dialog calls its ends that come without a Reason."""

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Open:
    """A record that is not complete."""

    record: CallRecord
    over: asyncio.TimerHandle | None = None
    """Set once the call is over and only the relay's counters are waited for."""
    counted: bool = False


class CallRecorder:
    """Keeps the records of one server's calls; makes itself an observer of them."""

    def __init__(self, service: Broadcasting, records: CallRecords) -> None:
        service.observers.append(self)
        service.recorder = self
        self._service = service
        self._records = records
        self._open: dict[str, _Open] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def resume(self) -> None:
        """After a restart, once the calls are restored: go on with the records of those held, end the others."""
        for record in await self._records.unfinished(self._service.as_id):
            if record.record_id in self._held():
                self._open[record.record_id] = _Open(record)
            else:
                await self._write(_ended(record, "server", FAILURE, RESTARTED))

    async def inherited(self, group: LiveGroup, from_as: str) -> None:
        """See Recorder: the records go on as ours."""
        own = _broadcast_id(group)
        for record in await self._records.unfinished(from_as):
            if record.record_id == own or record.record_id.startswith(f"{own}/"):
                ours = replace(record, as_id=self._service.as_id)
                if record.record_id in self._held():
                    self._open[record.record_id] = _Open(ours)
                    await self._write(ours)
                else:
                    await self._write(_ended(ours, "server", FAILURE, RESTARTED))

    def abandoned(self, group: LiveGroup) -> None:
        """See Recorder: whoever has the calls completes their records."""
        for record_id in [_broadcast_id(group), *(_view_id(group, leg_id) for leg_id in group.viewers)]:
            self._open.pop(record_id, None)

    async def close(self) -> None:
        """Write what is still waited for; the server stops."""
        for entry in [entry for entry in self._open.values() if entry.over is not None]:
            self._complete(entry)
        if self._writing:
            await asyncio.wait(self._writing)

    def broadcast_live(self, group: LiveGroup) -> None:
        """See BroadcastObserver."""
        self._begin(_broadcast_id(group), "broadcast", group, group.channel, group.opened_at, time.time())

    def broadcast_lost(self, group: LiveGroup) -> None:
        """See BroadcastObserver: it may come back."""

    def broadcast_back(self, group: LiveGroup) -> None:
        """See BroadcastObserver: the same broadcast goes on."""

    def broadcast_closing(self, group: LiveGroup) -> None:
        """See BroadcastObserver: over only when its viewers have left."""

    def broadcast_ended(self, group: LiveGroup, reason: str) -> None:
        """See BroadcastObserver. The relay closed the group before, or cannot be asked: nothing is waited for."""
        if (entry := self._open.get(_broadcast_id(group))) is not None:
            entry.record = _ended(entry.record, "party" if reason == ENDED else "server", *_parsed(reason))
            self._complete(entry)

    def viewer_joined(self, group: LiveGroup, viewer: Viewer) -> None:
        """See BroadcastObserver."""
        party = viewer.caller or viewer.number
        self._begin(_view_id(group, viewer.leg_id), "view", group, party, viewer.since, viewer.since)

    def viewer_left(self, group: LiveGroup, viewer: Viewer, cause: str) -> None:
        """See BroadcastObserver."""
        entry = self._open.get(_view_id(group, viewer.leg_id))
        if entry is None or entry.over is not None:
            return
        entry.record = _ended(entry.record, "party" if cause == "bye" else "server", *_parsed(cause))
        if entry.counted:
            self._complete(entry)
        else:
            entry.over = asyncio.get_running_loop().call_later(CALL_TIMEOUT, self._complete, entry)

    def media_ended(self, event: LegReports) -> None:
        """The relay's counters of legs that it removed."""
        broadcast = f"{event.group_id}/{event.epoch}"
        for report in event.reports:
            entry = self._open.get(broadcast if report.role == "source" else f"{broadcast}/{report.leg_id}")
            if entry is not None:
                entry.record, entry.counted = _counted(entry.record, report), True
                if entry.over is not None:
                    self._complete(entry)

    def _begin(
        self,
        record_id: str,
        kind: Literal["broadcast", "view"],
        group: LiveGroup,
        party: str,
        start: float,
        answer: float,
    ) -> None:
        service = self._service
        relay_id = service.link.relay_of((group.channel, group.epoch))
        record = CallRecord(
            record_id, kind, group.channel, party, group.service, start, answer, service.as_id, relay_id
        )
        self._open[record_id] = _Open(record)
        self._write_soon(record)

    def _complete(self, entry: _Open) -> None:
        if entry.over is not None:
            entry.over.cancel()
        if self._open.pop(entry.record.record_id, None) is not None:
            self._write_soon(entry.record)

    def _write_soon(self, record: CallRecord) -> None:
        task = self._service.spawn(self._write(record))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, record: CallRecord) -> None:
        try:
            await self._records.write(record)
        except OSError as error:
            log.error("record.not_stored", record=record.record_id, error=str(error))

    def _held(self) -> set[str]:
        groups = self._service.open.values()
        views = {_view_id(group, leg_id) for group in groups for leg_id in group.viewers}
        return views | {_broadcast_id(group) for group in groups}


def _broadcast_id(group: LiveGroup) -> str:
    return f"{group.channel}/{group.epoch}"


def _view_id(group: LiveGroup, leg_id: str) -> str:
    return f"{group.channel}/{group.epoch}/{leg_id}"


def _ended(record: CallRecord, by: EndedBy, cause: int, reason: str) -> CallRecord:
    return replace(record, ended_at=time.time(), ended_by=by, cause=cause, reason=reason)


def _parsed(cause: str) -> tuple[int, str]:
    """Q.850 cause and words of a Reason header value, or of what a dialog calls its end."""
    if cause in _DIALOG_ENDS:
        return _DIALOG_ENDS[cause]
    try:
        reason = Reason.parse(cause)
    except SipParseError:
        return FAILURE, cause
    return (reason.cause or CLEARING) if reason.protocol == "Q.850" else CLEARING, reason.text


def _counted(record: CallRecord, report: LegReport) -> CallRecord:
    """The record with one leg more: a broadcaster that came back had several."""
    lost = None if record.lost is None and report.lost is None else (record.lost or 0) + (report.lost or 0)
    return replace(
        record,
        packets_in=(record.packets_in or 0) + report.packets_in,
        octets_in=(record.octets_in or 0) + report.octets_in,
        packets_out=(record.packets_out or 0) + report.packets_out,
        octets_out=(record.octets_out or 0) + report.octets_out,
        lost=lost,
    )
