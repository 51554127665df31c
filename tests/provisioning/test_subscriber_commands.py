"""Accounts as the operator handles them: seeding, the `dialcast subscriber` and `dialcast config` commands."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import typer
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from protocols.records import Subscriber
from provisioning import cli
from provisioning.config import Config, SipConfig, StoreConfig, SubscriberSeed
from provisioning.loader import ConfigError
from provisioning.reference import sample_yaml
from provisioning.store import Store
from provisioning.subscribers import SubscriberError, change_password, provision

Command = Callable[..., Result]


@pytest.fixture
def dialcast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command line as `dialcast` mounts it, on a data directory of its own."""
    monkeypatch.setenv("DIALCAST_DATA_DIR", str(tmp_path / "data"))
    app = typer.Typer()
    app.add_typer(cli.config_app, name="config")
    app.add_typer(cli.subscriber_app, name="subscriber")

    def run(*words: str, stdin: str = "", code: int = 0) -> Result:
        result = CliRunner().invoke(app, words, input=stdin)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


def stored(data_dir: Path) -> Sequence[Subscriber]:
    async def read() -> Sequence[Subscriber]:
        store = await Store.open(Config(data_dir=data_dir))
        try:
            return await store.credentials.all()
        finally:
            await store.close()

    return asyncio.run(read())


def provisioned(config: Config) -> list[str]:
    async def run() -> list[str]:
        store = await Store.open(config)
        try:
            return await provision(store, config)
        finally:
            await store.close()

    return asyncio.run(run())


def test_an_added_number_can_authenticate_with_every_algorithm(dialcast: Command, tmp_path: Path) -> None:
    dialcast("subscriber", "add", "1234", "--name", "Ann", "--password-stdin", stdin="hunter2\n")
    (account,) = stored(tmp_path / "data")
    assert (account.aor, account.display_name) == ("1234@dialcast.internal", "Ann")
    secret = b"1234:dialcast.internal:hunter2"
    assert account.ha1_for("MD5") == hashlib.md5(secret).hexdigest()
    assert account.ha1_for("SHA-256") == hashlib.sha256(secret).hexdigest()
    assert account.ha1_for("SHA-512-256") == hashlib.new("sha512_256", secret).hexdigest()


def test_a_password_is_never_shown_or_stored(dialcast: Command, tmp_path: Path) -> None:
    results = [
        dialcast("subscriber", "add", "1234", "--password-stdin", stdin="hunter2\n"),
        dialcast("subscriber", "list"),
        dialcast("subscriber", "passwd", "1234", "--password-stdin", stdin="hunter22\n"),
        dialcast("subscriber", "add", "1234", "--password-stdin", stdin="hunter23\n", code=1),
    ]
    assert "hunter2" not in "".join(result.output for result in results)
    assert all(b"hunter2" not in file.read_bytes() for file in (tmp_path / "data").iterdir())
    (account,) = stored(tmp_path / "data")
    assert str(account.ha1_for("MD5")) not in repr(account)
    assert str(account.ha1_for("MD5")) not in dialcast("subscriber", "list").output


def test_a_generated_password_is_printed_once_and_works(dialcast: Command, tmp_path: Path) -> None:
    password = dialcast("subscriber", "add", "1234", "--generate").stdout.split()[-1]
    assert len(password) >= 16
    (account,) = stored(tmp_path / "data")
    assert account.ha1_for("MD5") == hashlib.md5(f"1234:dialcast.internal:{password}".encode()).hexdigest()


def test_list_passwd_remove(dialcast: Command, tmp_path: Path) -> None:
    dialcast("subscriber", "add", "1234", "--name", "Ann", "--generate")
    assert "1234@dialcast.internal" in dialcast("subscriber", "list").output
    (before,) = stored(tmp_path / "data")
    dialcast("subscriber", "passwd", "1234", "--generate")
    (after,) = stored(tmp_path / "data")
    assert after.ha1 != before.ha1
    assert after.display_name == "Ann"
    dialcast("subscriber", "remove", "1234")
    assert stored(tmp_path / "data") == []
    assert "no subscribers" in dialcast("subscriber", "list").output


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["subscriber", "add", "12a", "--generate"], 1, "NUMBER: must be 1 to 20 digits"),
        (["subscriber", "add", "8888", "--generate"], 1, "8888 is a service number"),
        (["subscriber", "add", "12", "--generate", "--name", "a\nb"], 1, "--name: must be text without control"),
        (["subscriber", "add", "12"], 1, "use --password-stdin or --generate"),
        (["subscriber", "add", "12", "--password-stdin"], 1, "a password is 1 to 1000 printable characters"),
        (["subscriber", "add", "12", "--password-stdin", "--generate"], 1, "exclude each other"),
        (["subscriber", "remove", "12"], 1, "--data-dir FOLDER, or -c FILE"),
        (["subscriber", "passwd", "12", "--generate"], 1, "--data-dir FOLDER, or -c FILE"),
        (["subscriber", "list", "--config", "missing.yaml"], 2, "missing.yaml: cannot be read"),
        (["subscriber", "list", "--data-dir", "/proc/nowhere"], 1, "no database in /proc/nowhere: "),
        (["subscriber", "add", "12", "--generate", "--data-dir", "/proc/nowhere"], 1, "data directory /proc/nowhere: "),
        (["config", "check", "missing.yaml"], 2, "missing.yaml: cannot be read"),
    ],
)
def test_a_mistake_is_one_clear_line_and_an_exit_code(
    dialcast: Command, words: list[str], code: int, expected: str
) -> None:
    (line,) = dialcast(*words, code=code).stderr.splitlines()
    assert line.startswith("dialcast: ")
    assert expected in line


def test_config_check_names_line_and_key(dialcast: Command, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("sip:\n  prot: 1\n  port: x\n")
    lines = dialcast("config", "check", str(tmp_path / "x.yaml"), code=2).stderr.splitlines()
    assert [line.partition("x.yaml:")[2][:11] for line in lines] == ["3: sip.port", "2: sip.prot"]


def test_config_defaults_is_a_file_that_passes_the_check(dialcast: Command, tmp_path: Path) -> None:
    text = dialcast("config", "defaults").stdout
    assert text == sample_yaml()
    (tmp_path / "x.yaml").write_text(text)
    assert "ok, domain dialcast.internal" in dialcast("config", "check", str(tmp_path / "x.yaml")).stdout


def test_seeds_are_added_once_and_never_overwrite(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path)
    assert provisioned(config) == [str(number) for number in range(1001, 1010)]

    async def change() -> None:
        store = await Store.open(config)
        await change_password(store, config, "1001", "my own")
        await store.close()

    asyncio.run(change())
    (own,) = (account for account in stored(tmp_path) if account.number == "1001")
    assert provisioned(config) == []
    assert own in stored(tmp_path)


def test_removing_a_seeded_number_says_that_it_comes_back(dialcast: Command, tmp_path: Path) -> None:
    provisioned(Config(data_dir=tmp_path / "data"))
    assert "next start adds it again" in dialcast("subscriber", "remove", "1003").stderr


def test_stored_sample_passwords_keep_the_server_off_the_network(tmp_path: Path) -> None:
    provisioned(Config(data_dir=tmp_path))
    outside = Config(data_dir=tmp_path, sip=SipConfig(bind="192.0.2.1"), subscribers=())
    with pytest.raises(ConfigError, match=r"sample passwords for 1001, 1002, .*dialcast subscriber passwd"):
        provisioned(outside)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [({"realm": "new.example"}, "set `realm: dialcast.internal`"), ({"domain": "new.example"}, "new.example, but")],
)
def test_the_realm_cannot_change_under_existing_subscribers(
    tmp_path: Path, changes: dict[str, str], remedy: str
) -> None:
    provisioned(Config(data_dir=tmp_path))
    with pytest.raises(ConfigError, match="1001") as caught:
        provisioned(Config.model_validate({"data_dir": tmp_path, **changes}))
    assert remedy in str(caught.value)


def test_a_realm_may_change_once_nobody_is_left(dialcast: Command, tmp_path: Path) -> None:
    dialcast("subscriber", "add", "12", "--generate")
    dialcast("subscriber", "remove", "12")
    seeds = (SubscriberSeed(number="12", password=SecretStr("x")),)
    assert provisioned(Config(data_dir=tmp_path / "data", realm="new", subscribers=seeds)) == ["12"]


def test_an_unprintable_seed_password_is_refused(tmp_path: Path) -> None:
    seeds = (SubscriberSeed(number="12", password=SecretStr("a\x00b")),)
    with pytest.raises(SubscriberError, match="12: a password is"):
        provisioned(Config(data_dir=tmp_path, subscribers=seeds))


def test_many_subscribers_of_the_configuration_are_stored_together(tmp_path: Path) -> None:
    """Not one commit after the other: with two hundred of them a server took seconds longer to start."""
    seeds = [SubscriberSeed(number=str(number), password=SecretStr("secret")) for number in range(2001, 2101)]
    config = Config(data_dir=tmp_path, subscribers=seeds, store=StoreConfig(commit_interval_ms=100))

    async def seconds() -> float:
        store = await Store.open(config)
        try:
            begun = asyncio.get_running_loop().time()
            assert len(await provision(store, config)) == 100
            return asyncio.get_running_loop().time() - begun
        finally:
            await store.close()

    assert asyncio.run(seconds()) < 5, "a hundred commits take ten seconds at least"
