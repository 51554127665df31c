"""What strangers send is logged as their words, never as lines or commands of their own."""

import json

import pytest
import structlog

from dialcast.logs import configure
from provisioning.config import LogConfig

EVIL = "1001\n12:00:00 [info] operator.stop channel=1002\x1b[2J"


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_value_cannot_forge_a_line_of_the_log(capsys: pytest.CaptureFixture[str], form: str) -> None:
    try:
        configure(LogConfig.model_validate({"format": form}), "test")
        structlog.get_logger().info("sip.received", from_number=EVIL)
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].isprintable()
    if form == "json":
        assert json.loads(lines[0])["from_number"] == EVIL
