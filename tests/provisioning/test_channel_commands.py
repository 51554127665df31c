"""Private broadcasts as the operator sets them up, and accounts in several domains."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from sqlalchemy import create_engine, text
from typer.testing import CliRunner, Result

from protocols.pin import check_pin
from protocols.records import Channel
from provisioning import channel_cli, cli
from provisioning.config import Config, DomainConfig
from provisioning.loader import ConfigError, load_config
from provisioning.store import Store
from provisioning.subscribers import provision

Command = Callable[..., Result]
OTHER = "other.example"


@pytest.fixture
def dialcast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command line on a data directory of its own, for two domains; 1001 to 1003 are subscribers of the first,
    1001 of the other too."""
    path = tmp_path / "dialcast.yaml"
    path.write_text(
        f"data_dir: {tmp_path / 'data'}\ndomains: [{{name: {OTHER}}}]\nchannels: {{max_listed: 3}}\nsubscribers: []\n"
    )
    monkeypatch.setenv("DIALCAST_CONFIG", str(path))
    app = typer.Typer()
    app.add_typer(channel_cli.channel_app, name="channel")
    app.add_typer(cli.subscriber_app, name="subscriber")
    app.add_typer(cli.config_app, name="config")

    def run(*words: str, stdin: str = "", code: int = 0) -> Result:
        result = CliRunner().invoke(app, words, input=stdin)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    for number in ("1001", "1002", "1003", f"1001@{OTHER}"):
        run("subscriber", "add", number, "--password-stdin", stdin="secret enough\n")
    return run


def channel(folder: Path, aor: str) -> Channel:
    async def read() -> Channel:
        store = await Store.open(Config(data_dir=folder / "data"))
        try:
            return await store.channels.get(aor)
        finally:
            await store.close()

    return asyncio.run(read())


def test_a_list_makes_a_number_private_until_it_is_opened_again(dialcast: Command, tmp_path: Path) -> None:
    assert "1001 is open" in dialcast("channel", "show", "1001").output
    allowed = dialcast("channel", "allow", "1001", "1002", "1003", f"1001@{OTHER}").output
    assert f"on the list: 1001@{OTHER}, 1002, 1003; others may not" in allowed
    assert channel(tmp_path, "1001@dialcast.internal").private
    assert channel(tmp_path, f"1001@{OTHER}") == Channel(), "the namesake in another domain is somebody else"
    assert "1002" not in dialcast("channel", "deny", "1001", "1002").output
    opened = dialcast("channel", "open", "1001").output
    assert "1001 is open" in opened and "1003" in opened
    assert "on the list: 1001@other.example, 1003; others may not" in dialcast("channel", "private", "1001").output


def test_a_pin_is_kept_as_a_salted_hash_and_shown_only_when_made(dialcast: Command, tmp_path: Path) -> None:
    said = dialcast("channel", "pin", "1001", "--pin-stdin", stdin="47114711\n").output
    said += dialcast("channel", "show", "1001").output
    assert "47114711" not in said and said.count("are asked for the PIN") == 2
    kept = channel(tmp_path, "1001@dialcast.internal").pin
    assert "47114711" not in kept and check_pin(kept, "47114711") and not check_pin(kept, "47114712")
    made = dialcast("channel", "pin", "1001", "--generate").output.split()[-1]
    assert made.isdigit() and check_pin(channel(tmp_path, "1001@dialcast.internal").pin, made)
    dialcast("channel", "pin", "1002", "--pin-stdin", stdin=f"{made}\n")
    assert channel(tmp_path, "1002@dialcast.internal").pin != channel(tmp_path, "1001@dialcast.internal").pin
    dialcast("channel", "open", "1001")
    assert channel(tmp_path, "1001@dialcast.internal").pin == ""


@pytest.mark.parametrize(
    ("words", "stdin", "complaint"),
    [
        (("show", "1009"), "", "1009 is no subscriber: see `dialcast subscriber list`"),
        (("allow", "1001", "1009"), "", "1009 is no subscriber"),
        (("allow", "1001", "bob"), "", "VIEWER: must be 1 to 20 digits, or NUMBER@DOMAIN"),
        (("show", "1001@"), "", "NUMBER: must be 1 to 20 digits, or NUMBER@DOMAIN"),
        (("deny", "1001", "1002"), "", "1002 is not on the list of 1001"),
        (("allow", "1001", "7@a.org", "8@a.org", "9@a.org", "6@a.org"), "", "a list holds at most 3 numbers"),
        (("pin", "1001", "--pin-stdin"), "123\n", "a PIN is 4 to 12 digits"),
        (("pin", "1001", "--pin-stdin"), "12three4\n", "a PIN is 4 to 12 digits"),
        (("pin", "1001"), "", "no terminal to ask for a PIN: use --pin-stdin or --generate"),
        (("pin", "1001", "--pin-stdin", "--generate"), "", "--pin-stdin and --generate exclude each other"),
    ],
)
def test_a_mistake_is_one_clear_line_and_changes_nothing(
    dialcast: Command, tmp_path: Path, words: tuple[str, ...], stdin: str, complaint: str
) -> None:
    result = dialcast("channel", *words, stdin=stdin, code=1)
    assert complaint in result.output and len(result.output.splitlines()) == 1
    assert channel(tmp_path, "1001@dialcast.internal") == Channel()


def test_viewers_of_other_servers_may_be_listed(dialcast: Command, tmp_path: Path) -> None:
    dialcast("channel", "allow", "1001", "4930@gateway.example")
    assert channel(tmp_path, "1001@dialcast.internal").listed == {"4930@gateway.example"}


def test_the_settings_go_with_the_account(dialcast: Command, tmp_path: Path) -> None:
    dialcast("channel", "allow", "1003", "1002")
    dialcast("subscriber", "remove", "1003")
    assert channel(tmp_path, "1003@dialcast.internal") == Channel()


def test_a_running_server_sees_the_change_of_another_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = Config(data_dir=tmp_path)
        server, command = await Store.open(config), await Store.open(config)
        assert not (await server.channels.get("1001@x")).private
        await command.channels.change("1001@x", lambda _: Channel(True))
        async with asyncio.timeout(4):
            while not (await server.channels.get("1001@x")).private:  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.02)
        await server.close()
        await command.close()

    asyncio.run(scenario())


def test_the_shell_completes_numbers(dialcast: Command) -> None:
    def completed(*words: str) -> list[str]:
        line = {"COMP_WORDS": " ".join(["dialcast", *words]), "COMP_CWORD": str(len(words))}
        shell = os.environ | line | {"_DIALCAST_COMPLETE": "complete_bash"}
        program = Path(sys.executable).with_name("dialcast")
        return subprocess.run([program], env=shell, capture_output=True, text=True, check=True).stdout.split()

    assert completed("channel", "show", "100") == ["1001", f"1001@{OTHER}", "1002", "1003"]
    assert completed("channel", "allow", "1001", "1003") == ["1003"]


def test_the_same_number_is_two_accounts_in_two_domains(dialcast: Command) -> None:
    listed = dialcast("subscriber", "list").output
    assert "1001@dialcast.internal" in listed and f"1001@{OTHER}" in listed
    assert "name one of" in dialcast("subscriber", "remove", "1001", code=1).output
    dialcast("subscriber", "remove", f"1001@{OTHER}")
    dialcast("subscriber", "remove", "1001")
    wrong = dialcast("subscriber", "add", "1001@third.example", "--generate", code=1).output
    assert "third.example is no domain here: domains are dialcast.internal, other.example" in wrong
    assert f"domains dialcast.internal, {OTHER}" in dialcast("config", "check").output


def test_the_realm_of_a_domain_cannot_change_while_it_has_subscribers(dialcast: Command, tmp_path: Path) -> None:
    async def start(config: Config) -> None:
        store = await Store.open(config)
        try:
            await provision(store, config)
        finally:
            await store.close()

    def config(*domains: DomainConfig) -> Config:
        return Config(data_dir=tmp_path / "data", domains=domains, subscribers=())

    asyncio.run(start(config(DomainConfig(name=OTHER))))
    with pytest.raises(ConfigError, match=r"realm is new, but subscriber 1001@other.example has .* for other.example"):
        asyncio.run(start(config(DomainConfig(name=OTHER, realm="new"))))
    with pytest.raises(ConfigError, match=r"1001 belongs to other.example: set .* or list it in `domains`"):
        asyncio.run(start(config()))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("services: []", "services: at least one number is needed"),
        ("services: [{number: 88}, {number: 88}]", "services: number 88 is given twice"),
        ("services: [{number: 88, domain: x.example}]", "x.example, the domain of 88, is not among them"),
        ("services: [{number: 1001}]", "subscribers: number 1001 is a service number"),
        ("services: [{number: 88, pin: 12a4}]", "services[0].pin: must be 4 to 12 digits"),
        ("services: [{number: 88, broadcasters: ['(']}]", "services[0].broadcasters[0]: is not a regular expression"),
        ("services: [{number: 88, viewer: all}]", "services[0].viewer: unknown key; did you mean 'viewers'?"),
        ("domains: [{name: dialcast.internal}]", "domains: dialcast.internal is given twice"),
        ("domains: [{name: a.example, aliases: [b.example]}, {name: b.example}]", "domains: b.example is given twice"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "dialcast.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_config(path, {})
    (line,) = refusal.value.problems
    assert complaint in line and "12a4" not in line


def test_a_database_from_before_there_were_policies_is_brought_up(tmp_path: Path) -> None:
    async def touch() -> None:
        store = await Store.open(Config(data_dir=tmp_path))
        assert not (await store.channels.get("1001@x")).private
        assert await store.broadcasts.all() == []
        await store.close()

    asyncio.run(touch())
    engine = create_engine(f"sqlite:///{tmp_path / 'dialcast.db'}")
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE channels"))
        connection.execute(text("ALTER TABLE broadcasts DROP COLUMN service"))
        connection.execute(text("UPDATE facts SET value = '2' WHERE name = 'schema_version'"))
    engine.dispose()
    asyncio.run(touch())


def test_a_pin_given_as_an_argument_is_refused_with_the_ways_there_are(dialcast: Command) -> None:
    refused = dialcast("channel", "pin", "1001", "1234", code=2).stderr
    assert "--pin-stdin" in refused and "1234" not in refused
