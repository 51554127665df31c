"""A setting that nothing reads is a promise not kept."""

import re
from pathlib import Path

import pytest

from provisioning.config import Config, Section

ROOT = Path(__file__).resolve().parents[2]
# Read through a property of the model itself.
READ_BY_THE_MODEL = {"data_dir", "realm", "connect", "servers"}


def keys(section: type[Section], prefix: str = "") -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        inner = isinstance(kind, type) and issubclass(kind, Section)
        found += keys(kind, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


@pytest.mark.parametrize("key", keys(Config))
def test_every_setting_has_a_reader(key: str) -> None:
    name = key.rpartition(".")[2]
    if name in READ_BY_THE_MODEL:
        return
    sources = [
        path.read_text()
        for package in ("dialcast", "sip_app", "media_relay", "terminal_client", "provisioning")
        for path in (ROOT / package).rglob("*.py")
        if path.parent.name != "config"
    ]
    assert any(re.search(rf"\.{name}\b", text) for text in sources), f"{key} is read nowhere"
