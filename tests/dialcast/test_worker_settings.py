"""What each relay worker is told of the configuration."""

from itertools import pairwise

import pytest
from pydantic import ValidationError

from dialcast.workers import media_ports, worker_settings
from provisioning.config import Config


def configured(workers: int, *, metrics: int | None = 9461, **relay: int) -> Config:
    """Everything as shipped but for this."""
    return Config.model_validate({"relay": {"workers": workers, **relay}, "operations": {"relay_port": metrics}})


@pytest.mark.parametrize(("workers", "first", "last"), [(2, 20000, 39999), (3, 20000, 20031), (7, 1024, 65535)])
def test_workers_share_the_media_ports_evenly_and_none_twice(workers: int, first: int, last: int) -> None:
    config = configured(workers, port_min=first, port_max=last)
    shares = [media_ports(config, index) for index in range(workers)]
    assert shares[0][0] == first and shares[-1][1] <= last
    assert len({high - low for low, high in shares}) == 1
    assert all(low % 2 == 0 and high - low >= 3 for low, high in shares)
    assert all(high < low for (_, high), (low, _) in pairwise(shares))
    assert last - shares[-1][1] < 2 * workers, "no more is left over than cannot be shared"


def test_ports_of_control_and_metrics_follow_the_first_workers() -> None:
    settings = [worker_settings(configured(3, control_port=5070), index) for index in range(3)]
    assert [each["DIALCAST_RELAY__CONTROL_PORT"] for each in settings] == ["5070", "5071", "5072"]
    assert [each["DIALCAST_OPERATIONS__RELAY_PORT"] for each in settings] == ["9461", "9462", "9463"]
    assert {each["DIALCAST_RELAY__WORKERS"] for each in settings} == {"1"}, "or a worker would start workers"


def test_free_ports_and_none_stay_what_they_are() -> None:
    for metrics in (0, None):
        settings = worker_settings(configured(2, metrics=metrics), 1)
        assert settings["DIALCAST_RELAY__CONTROL_PORT"] == "0"
        assert "DIALCAST_OPERATIONS__RELAY_PORT" not in settings
    assert worker_settings(configured(1), 0) == {}


def test_more_workers_than_ports_are_refused() -> None:
    with pytest.raises(ValidationError, match="too few ports for 4 workers"):
        configured(4, port_min=20000, port_max=20011)
    with pytest.raises(ValidationError, match="no room above control_port"):
        configured(2, control_port=65535)
