"""What is done in the background: each task's failure is told, and answered where a request waits for it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog

from protocols.sip.errors import SipParseError
from sip_app.calls.capabilities import Rejected
from sip_app.element.users import refusal_for

log = structlog.get_logger("sip_app.element.tasks")


def failed(error: BaseException) -> None:
    """Log what a request, or what came of one, failed of: refusals are answers, not failures."""
    if isinstance(error, OSError):
        log.error("server.store_failed", error=str(error))
    elif not isinstance(error, Rejected | SipParseError):
        log.error("server.failed", exc_info=error)


class Tasks:
    """Those that run; the event loop alone would let them be collected half way. `failed` hears of their errors."""

    def __init__(self, failed: Callable[[BaseException], object] = failed) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._failed = failed

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[asyncio.Task[None]]:
        return iter([*self._running])

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something; what it fails of is told."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finished)
        return task

    def serve(self, work: Coroutine[Any, Any, None], refuse: Callable[[Rejected], object]) -> None:
        """Run the service of one request: if it ends in `Rejected` or an error, `refuse` gets the answer."""

        def served(task: asyncio.Task[None]) -> None:
            if (refusal := refusal_for(task)) is not None:
                refuse(refusal)

        self.spawn(work).add_done_callback(served)

    async def stop(self, within: float) -> None:
        """Let them end by themselves for so many seconds, then cancel them."""
        if self._running:
            await asyncio.wait(self._running, timeout=within)
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
