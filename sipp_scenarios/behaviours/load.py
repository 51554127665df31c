"""Load: many registrations and calls, of which none may fail. `--calls`, `--rate`, `--hold` say how much."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sipp_scenarios.behaviours.catalogue import behaviour
from sipp_scenarios.ports import free_ports
from sipp_scenarios.sipp import Account, Load, Sipp, run
from sipp_scenarios.world import World, require


def offer(
    world: World, scenario: str, accounts: Sequence[Account], dialled: str, port: int | None = None, **keys: str
) -> str:
    """Plays `scenario` as often as wished; response times in words. Raises SippError if one failed."""
    load = world.wishes.load
    rows = [(account, dialled) for account in accounts]
    media = free_ports(), free_ports()
    sipp = Sipp(
        scenario,
        world.server,
        rows,
        load=load,
        local_port=port,
        host=world.host,
        media_ports=media,
        keys=keys,
        trace=False,
    )
    with sipp:
        failed = sipp.failed(load.calls / load.rate + load.hold + 60)
        times = sipp.response_times()
    require(failed == 0, f"{failed} of {load.calls} failed")
    require(len(times) == load.calls, f"only {len(times)} of {load.calls} were answered")
    shares = ((50, "median"), (95, "95%"), (99, "99%"))
    words = [f"{name} {times[min(len(times) - 1, len(times) * share // 100)]:.0f} ms" for share, name in shares]
    return f"{load.calls} at {load.rate:g}/s, none failed: {', '.join(words)}, worst {times[-1]:.0f} ms"


@contextmanager
def callee(world: World, account: Account) -> Iterator[None]:
    """A registered phone that answers as many calls as are made."""
    port = world.register(account)
    load = Load(world.wishes.load.calls, 100, 500)
    answering = Sipp(
        "answer", world.server, [(account, "caller")], load=load, host=world.host, local_port=port, trace=False
    )
    with answering:
        yield
        require(answering.failed(30) == 0, "the phone that was called saw failures")
    world.register(account, port=port, expires=0)


@behaviour("load", "RFC 3261 section 10")
def load_registrations(world: World) -> str:
    """Registrations with digest, each number in turn; then all of them withdraw."""
    port, accounts = free_ports(), world.accounts[: world.wishes.load.calls]
    said = offer(world, "register", accounts, "nobody", port, expires="600")
    load = replace(world.wishes.load, calls=len(accounts))
    rows = [(account, "nobody") for account in accounts]
    withdrawing = Sipp(
        "register", world.server, rows, load=load, host=world.host, local_port=port, keys={"expires": "0"}
    )
    run(withdrawing, load.calls / load.rate + 30)
    return said


@behaviour("load", "RFC 3261 section 13.3")
def load_answered_calls(world: World) -> str:
    """Calls that the server answers and ends itself (a service code)."""
    return offer(world, "answered", world.accounts[1:], "*#21#")


@behaviour("load", "RFC 3261 section 16")
def load_relayed_calls(world: World) -> str:
    """Calls to another phone, through the server."""
    with callee(world, world.accounts[0]):
        return offer(world, "call", world.accounts[1:], world.accounts[0].number)


@behaviour("load", "docs/call-flows.md section 2")
def load_viewers(world: World) -> str:
    """Viewers of one broadcast who come and go."""
    with world.live(world.accounts[0]):
        return offer(world, "watch", world.accounts[1:], world.accounts[0].number)
