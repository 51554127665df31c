"""The behaviours by name: which scenario files run, with which media beside them, and what the outcome is called."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sipp_scenarios.media import Media, Stream, streams
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account, Load, Sipp, Traced, Transport, local_host, run

SINGLE: Final = Load()


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line gives to a behaviour."""

    server: str
    account: Account
    target: str
    peer: Account
    others: tuple[Account, ...]
    """Who else calls, in turn, under load: a server lets one number take few places."""
    clip: Path | None
    voice: Path | None
    load: Load
    transport: Transport


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
    ) -> None:
        """`hold` in seconds; `clip` and `voice` are what this phone shows and says, None sends nothing."""
        self.media = Media(local_host(server))
        self.answer: dict[str, Stream] = {}
        self._clip, self._voice = clip, voice
        self._call = scenario, server, [(account, target)]
        self._load, self._transport = Load(hold=hold), transport

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.media)
            sipp = Sipp(*self._call, load=self._load, transport=self._transport, media_ports=self.media.ports)
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


def _register(options: Options) -> Iterator[str]:
    seen = register(options.server, options.account, transport=options.transport)
    yield f"{options.account.number} is registered: {seen[-1].start_line}"


def _go_live(options: Options) -> Iterator[str]:
    with _call("go_live", options) as call:
        call.answered()
        yield from _streams("live", call)
        yield _answers(call.finished(options.load.hold + 30))


def _watch(options: Options) -> Iterator[str]:
    with _call("watch", options) as call:
        call.answered()
        yield from _streams("watching", call)
        seen = call.finished(options.load.hold + 30)
        for kind, received in call.media.received.items():
            yield f"{kind}: {len(received.packets)} packets received, {received.lost()} lost"
        if call.media.received["video"].packets:
            yield f"video: {len(call.media.pictures())} pictures decoded"
        yield _answers(seen)


def _call(scenario: str, options: Options) -> Call:
    return Call(
        scenario,
        options.server,
        options.account,
        options.target,
        hold=options.load.hold,
        clip=options.clip,
        voice=options.voice,
        transport=options.transport,
    )


def _streams(doing: str, call: Call) -> Iterator[str]:
    for stream in call.answer.values():
        yield f"{doing}: {stream.kind} {stream.encoding} with {stream.host}:{stream.port}"


def _answers(seen: list[Traced]) -> str:
    return "messages: " + ", ".join(message.start_line for message in seen if not message.sent)


def _ordinary_call(options: Options) -> Iterator[str]:
    seen = ordinary_call(options.server, options.account, options.peer, options.load.hold)
    yield _answers(seen)


def _code_call(options: Options) -> Iterator[str]:
    seen = dial_code(options.server, options.account, options.target, options.transport)
    yield "the server said: " + next(m.header("Reason") for m in seen if m.start_line.startswith("BYE"))


def _register_load(options: Options) -> Iterator[str]:
    keys = {"expires": "600"}
    rows = [(options.account, "")]
    sipp = Sipp(
        "register", options.server, rows, load=options.load, keys=keys, transport=options.transport, trace=False
    )
    run(sipp, options.load.calls / options.load.rate + 60)
    yield f"{options.load.calls} registrations at {options.load.rate:g} a second, none failed"


def _call_load(options: Options) -> Iterator[str]:
    scenario = "code" if "*" in options.target or "#" in options.target else "watch"
    rows = [(account, options.target) for account in (options.account, *options.others)]
    media = free_ports(), free_ports()
    sipp = Sipp(
        scenario,
        options.server,
        rows,
        load=options.load,
        transport=options.transport,
        media_ports=media,
        trace=False,
    )
    run(sipp, options.load.calls / options.load.rate + options.load.hold + 60)
    yield f"{options.load.calls} calls at {options.load.rate:g} a second, none failed"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One entry of the list: what it does, what it dials unless told, and how it runs."""

    explanation: str
    target: str
    run: Callable[[Options], Iterator[str]]
    load: Load = SINGLE


BEHAVIOURS: Final = {
    "register": Behaviour("REGISTER with digest authentication: 401, answer, 200", "", _register),
    "go_live": Behaviour(
        "dials the service number, is live with --clip and --voice for --hold seconds", "8888", _go_live, Load(hold=30)
    ),
    "watch": Behaviour(
        "calls a broadcaster's number (--target), receives for --hold seconds, counts and decodes", "1001", _watch
    ),
    "ordinary_call": Behaviour(
        "registers --peer, calls it as --number, rings, talks for --hold seconds, hangs up", "", _ordinary_call,
        Load(hold=1),
    ),
    "code_call": Behaviour(
        "dials a service code (--target, e.g. '*21*8888#'): one-shot call ended by the server", "*#21#", _code_call
    ),
    "register_load": Behaviour(
        "--calls registrations at --rate a second", "", _register_load, Load(calls=1000, rate=80, at_once=200)
    ),
    "call_load": Behaviour(
        "--calls calls at --rate a second: to a service code, or with --target to a live number",
        "*#21#",
        _call_load,
        Load(calls=500, rate=25, at_once=500, hold=1),
    ),
}  # fmt: skip
