"""A configuration is read again while calls go on: what can change does, what cannot is named."""

import asyncio

import pytest
import structlog

from dialcast.logs import configure, set_level
from dialcast.reload import Reloader
from provisioning.config import Config, LogConfig, Section
from provisioning.loader import ConfigError
from provisioning.reload import FIXED, LIVE, is_live, reloaded


def known_keys(section: type[Section] = Config, prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        inner = isinstance(kind, type) and issubclass(kind, Section)
        keys += known_keys(kind, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return keys


def test_every_key_that_is_said_to_change_exists() -> None:
    keys = known_keys()
    for pattern in (*LIVE, *FIXED):
        assert any(key == pattern or (pattern.endswith("*") and key.startswith(pattern[:-1])) for key in keys), pattern


@pytest.mark.parametrize(
    "key", ["sip.bind", "sip.port", "store.url", "domain", "realm", "data_dir", "relay.port_min", "control.connect"]
)
def test_addresses_names_and_stores_need_a_restart(key: str) -> None:
    assert not is_live(key)


def test_live_keys_change_and_the_others_stay_and_are_named() -> None:
    running = Config()
    wanted = Config.model_validate(
        {"sip": {"port": 5080, "max_bindings": 3}, "domain": "example.org", "service": {"reconnect_grace": 7}}
    )
    result = reloaded(running, wanted)
    assert set(result.changed) == {"sip.max_bindings", "service.reconnect_grace"}
    assert set(result.restart) == {"sip.port", "domain"}
    assert (result.config.sip.port, result.config.domain) == (5060, "dialcast.internal")
    assert (result.config.sip.max_bindings, result.config.service.reconnect_grace) == (3, 7)


def test_what_is_right_by_itself_and_wrong_with_what_stays_is_refused() -> None:
    """Sample accounts are for loopback; the file moved there, the running server did not."""
    running = Config.model_validate({"sip": {"bind": "192.0.2.1"}, "subscribers": []})
    with pytest.raises(ConfigError, match=r"sip\.bind"):
        reloaded(running, Config())


def test_a_part_that_refuses_leaves_the_configuration_in_force() -> None:
    async def run() -> None:
        async def refuse(config: Config) -> None:
            raise ConfigError("subscribers: no")

        reloader = Reloader(Config(), lambda: Config.model_validate({"sip": {"max_bindings": 2}}), refuse)
        with pytest.raises(ConfigError):
            await reloader.reload()
        assert reloader.config == Config()

    asyncio.run(run())


def test_a_changed_level_reaches_loggers_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        configure(LogConfig(level="info", format="json"), "test")
        log = structlog.get_logger()
        log.debug("before")
        set_level("debug")
        log.debug("after")
        set_level("error")
        log.warning("too little")
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    said = capsys.readouterr().err
    assert "after" in said and "before" not in said and "too little" not in said
