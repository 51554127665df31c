"""What one behaviour gets: a server, an address and accounts of its own, and short ways to use them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from sipp_scenarios.calls import Call
from sipp_scenarios.footage import make_clip, make_tone
from sipp_scenarios.own_server import Target
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account, Load, Sipp, SippError, Traced, Transport, run
from sipp_scenarios.wire import Datagrams, options

SERVICE = "8888"


class Skipped(Exception):
    """This behaviour needs what this server does not have; the text says what."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line may change: files to show and to say, how long, how much."""

    clip: Path | None = None
    voice: Path | None = None
    hold: float | None = None
    load: Load = field(default_factory=Load)


@dataclass(frozen=True, slots=True)
class World:
    """The surroundings of one behaviour. `host` is its own address, where it has one; `accounts` are its own."""

    target: Target
    host: str
    other_host: str
    accounts: tuple[Account, ...]
    wishes: Wishes

    @property
    def server(self) -> str:
        """HOST:PORT of SIP over UDP."""
        return self.target.udp

    def needs_own(self, what: str) -> None:
        """Raises `Skipped` unless the server is one we started with settings of ours."""
        if not self.target.own:
            raise Skipped(f"needs {what}: runs without --server only")

    def sipp(
        self,
        scenario: str,
        account: Account,
        dialled: str = "nobody",
        *,
        hold: float = 20.0,
        host: str | None = None,
        transport: Transport = "udp",
        local_port: int | None = None,
        through: str | None = None,
        keys: dict[str, str] | None = None,
    ) -> Sipp:
        """One phone that plays a scenario, as a context manager; `keys` are the scenario's own keywords."""
        server = self.server if transport == "udp" else self.target.tcp
        ports = free_ports(), free_ports()
        return Sipp(
            scenario,
            server,
            [(account, dialled)],
            load=Load(hold=hold),
            transport=transport,
            local_port=local_port,
            host=host or self.host,
            media_ports=ports,
            keys=keys,
            through=through,
        )

    def play(
        self, scenario: str, account: Account, dialled: str = "nobody", within: float = 30, **keys: str
    ) -> list[Traced]:
        """Plays a scenario to its end; its messages. Raises SippError."""
        return run(self.sipp(scenario, account, dialled, keys=keys), within)

    def register(self, account: Account, *, port: int | None = None, expires: int = 600) -> int:
        """Registers a phone; the port it is called at. Raises SippError."""
        port = port or free_ports()
        run(self.sipp("register", account, local_port=port, keys={"expires": str(expires)}))
        return port

    @contextmanager
    def phone(self, scenario: str, account: Account, **keys: str) -> Iterator[Sipp]:
        """A registered phone that plays a scenario when it is called."""
        port = self.register(account)
        try:
            with self.sipp(scenario, account, local_port=port, keys=keys) as phone:
                yield phone
        finally:
            self.register(account, port=port, expires=0)

    def dial(self, account: Account, code: str) -> str:
        """Dials a service code; the Reason of the BYE that ends the call. Raises SippError."""
        seen = self.play("code", account, code)
        return one(seen, "BYE").header("Reason")

    @contextmanager
    def forwarding(self, account: Account, code: str, to: str) -> Iterator[None]:
        """A number forwards by one of the services for a while."""
        self.dial(account, f"**{code}*{to}#")
        try:
            yield
        finally:
            self.dial(account, f"##{code}#")

    @contextmanager
    def live(self, account: Account, service: str = SERVICE) -> Iterator[Sipp]:
        """`account` is live, and its number forwards to the service; on leaving it hangs up if it still talks."""
        with self.sipp("go_live", account, service, hold=120) as phone:
            phone.received("SIP/2.0 200")
            self.dial(account, f"*21*{service}#")
            yield phone
            if not any(message.start_line.startswith("BYE") for message in phone.messages()):
                phone.hang_up()
            phone.finished(15)

    def talking(self, scenario: str, account: Account, dialled: str, **keys: str) -> Sipp:
        """A phone that calls and holds the call until `hang_up`."""
        return self.sipp(scenario, account, dialled, hold=120, keys=keys)

    @contextmanager
    def call(self, scenario: str, account: Account, dialled: str, hold: float = 120.0) -> Iterator[Call]:
        """A call with media: a moving bar and a tone are sent, unless --clip or --voice were given."""
        with TemporaryDirectory(prefix="sipp-media-") as folder:
            clip = self.wishes.clip or make_clip(Path(folder) / "clip.mp4")
            voice = self.wishes.voice or make_tone(Path(folder) / "tone.wav")
            call = Call(scenario, self.server, account, dialled, hold=hold, clip=clip, voice=voice, host=self.host)
            with call:
                yield call

    def served(self) -> None:
        """The server still answers OPTIONS and calls, from another address than the behaviour's. Raises SippError."""
        with Datagrams(self.other_host) as probe:
            probe.send(self.server, options(self.server, probe.host, probe.port))
            require(any("200 OK" in text for text in probe.received()), "OPTIONS is not answered any more")
        said = run(self.sipp("code", self.accounts[-1], "*#21#", host=self.other_host))
        require("cause=200" in one(said, "BYE").header("Reason"), "a call is not served any more")


def require(condition: object, what: str) -> None:
    """Raises SippError with `what` is wrong, unless the condition holds."""
    if not condition:
        raise SippError(what)


def one(seen: list[Traced], start: str, cseq: str = "") -> Traced:
    """The first message whose start line begins so, with this method in CSeq. Raises SippError if there is none."""
    for message in seen:
        if message.start_line.startswith(start) and cseq in message.header("CSeq"):
            return message
    raise SippError(f"no {start} {cseq}\n" + "\n".join(f"{'->' if m.sent else '<-'} {m.start_line}" for m in seen))


def equal(what: str, found: object, wanted: object) -> None:
    """Raises SippError unless what was found is what is wanted."""
    require(found == wanted, f"{what}: {found!r}, wanted {wanted!r}")


def until(what: str, look: Callable[[], bool], within: float = 10.0) -> None:
    """Waits until it is so. Raises SippError when time is up."""
    deadline = time.monotonic() + within
    while not look():
        require(time.monotonic() < deadline, f"not within {within:g} s: {what}")
        time.sleep(0.05)
