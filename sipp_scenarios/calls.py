"""Single calls and registrations of stock phones: what tests, benchmarks and the suite's behaviours are made of."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from sipp_scenarios.media import Media, Stream, streams
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account, Load, Sipp, Traced, Transport, local_host, run


class Call:
    """One call with sound and picture: SIPp signals, `Media` sends and receives. Use it as a context manager."""

    def __init__(
        self,
        scenario: str,
        server: str,
        account: Account,
        target: str,
        *,
        hold: float = 5.0,
        clip: Path | None = None,
        voice: Path | None = None,
        transport: Transport = "udp",
        host: str | None = None,
    ) -> None:
        """`hold` in seconds; `clip` and `voice` are what this phone shows and says, None sends nothing."""
        self.media = Media(host or local_host(server))
        self.answer: dict[str, Stream] = {}
        self._clip, self._voice = clip, voice
        self._call = scenario, server, [(account, target)]
        self._load, self._transport, self._host = Load(hold=hold), transport, host

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.media)
            ports = self.media.ports
            sipp = Sipp(*self._call, load=self._load, transport=self._transport, host=self._host, media_ports=ports)
            self.sipp = stack.enter_context(sipp)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def answered(self, within: float = 10.0) -> Traced:
        """Waits for the 200 to our INVITE and starts sending."""
        answer = self.sipp.received("SIP/2.0 200", within)
        self.answer = streams(answer.text)
        self.media.send(self.answer, self._clip, self._voice)
        return answer

    def finished(self, within: float = 30.0) -> list[Traced]:
        """Waits for the end of the call. Raises SippError if it did not go as written."""
        return self.sipp.finished(within)


def register(
    server: str, account: Account, *, expires: int = 600, local_port: int | None = None, transport: Transport = "udp"
) -> list[Traced]:
    """Registers `account` from `local_port`; `expires` 0 withdraws. Raises SippError."""
    keys = {"expires": str(expires)}
    rows = [(account, "")]
    return run(Sipp("register", server, rows, local_port=local_port, keys=keys, transport=transport))


def dial_code(server: str, account: Account, code: str, transport: Transport = "udp") -> list[Traced]:
    """Dials a service code as a person types it, e.g. `*21*8888#`. Raises SippError unless it is answered."""
    return run(Sipp("code", server, [(account, code)], transport=transport))


def ordinary_call(
    server: str, caller: Account, callee: Account, hold: float = 1.0, *, dialled: str | None = None
) -> list[Traced]:
    """Registers the callee, has it answer one call to its number, or to `dialled` if that is forwarded to it.

    Returns what the caller saw. Raises SippError.
    """
    port = free_ports()
    register(server, callee, local_port=port)
    media = free_ports(), 9
    with Sipp("answer", server, [(callee, "")], local_port=port, media_ports=media) as answering:
        seen = run(Sipp("call", server, [(caller, dialled or callee.number)], load=Load(hold=hold), media_ports=media))
        answering.finished(10)
    register(server, callee, expires=0, local_port=port)
    return seen
