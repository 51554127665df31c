"""Files, folders and drivers that a configuration names are missed before a start, by key and line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dialcast.command_line import app
from provisioning.loader import ConfigError, load_config
from provisioning.named_files import RELAY

RUN = CliRunner().invoke
SETTINGS = {
    "tls: {certificate: /nofile.pem, key: /nokey.pem}": (
        "tls.certificate: /nofile.pem: cannot be read: No such file",
        "tls.key: /nokey.pem: cannot be read: No such file",
    ),
    "control: {tls_certificate: /a.pem, tls_key: /b.pem, tls_ca: /c.pem}": ("control.tls_ca: /c.pem: cannot be read",),
    "data_dir: /dev/null/data": ("data_dir: /dev/null/data: cannot be used: /dev/null is no directory",),
    "store: {url: 'nosuch+driver://me:hunter2@host/name'}": ("store.url: there is no database driver 'nosuch+driver'",),
    "store: {url: 'mysql+pymysql://me:hunter2@host/name'}": ("store.url: the driver of 'mysql+pymysql' is not inst",),
}


@pytest.mark.parametrize("text", SETTINGS)
@pytest.mark.parametrize("command", [("config", "check"), ("up", "-c"), ("as", "-c")])
def test_what_is_named_and_missing_is_told_alike_by_check_and_start(
    tmp_path: Path, text: str, command: tuple[str, ...]
) -> None:
    file = tmp_path / "dialcast.yaml"
    file.write_text(f"domain: example.org\n{text}\n")
    told = RUN(app, [*command, str(file)])
    assert told.exit_code == 2
    for complaint in SETTINGS[text]:
        assert f"dialcast: {file}:2: {complaint}" in told.stderr
    assert "hunter2" not in told.stderr


def test_a_folder_that_can_be_made_is_no_mistake_and_is_not_made(tmp_path: Path) -> None:
    file, folder = tmp_path / "dialcast.yaml", tmp_path / "a" / "b"
    file.write_text(f"data_dir: {folder}\n")
    assert RUN(app, ["config", "check", str(file)]).exit_code == 0
    assert not folder.parent.exists()


def test_a_relay_needs_the_files_of_the_control_link_only(tmp_path: Path) -> None:
    file = tmp_path / "dialcast.yaml"
    file.write_text("tls: {certificate: /nofile.pem, key: /nokey.pem}\n")
    assert load_config(file, {}, needed=RELAY).tls.key == Path("/nokey.pem")
    file.write_text("control: {tls_certificate: /a.pem, tls_key: /b.pem, tls_ca: /c.pem}\n")
    with pytest.raises(ConfigError, match=r"control\.tls_key"):
        load_config(file, {}, needed=RELAY)


@pytest.mark.parametrize(("part", "options"), [("as", "--bind --sip-port --data-dir --log-level --log-format"),
                                               ("relay", "--bind --log-level --log-format")])  # fmt: skip
def test_a_part_alone_takes_the_options_of_both_that_concern_it(part: str, options: str) -> None:
    shown = RUN(app, [part, "--help"], env={"COLUMNS": "120"}).stdout
    assert all(option in shown for option in options.split())
    told = RUN(app, [part, "--bind", "nonsense"])
    assert told.exit_code == 2 and f"command line: {'sip' if part == 'as' else part}.bind" in told.stderr
