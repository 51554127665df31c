"""Every flow of the service, 70 seeds each, on a network that loses, doubles, delays and reorders.

Whatever happens on the way: both sides of a call agree whether it stands, and when all is over nothing is left in the
server. `DIALCAST_LOSSY_SEEDS=5000 pytest tests/sip_app/test_lossy_flows.py` runs more seeds,
`DIALCAST_LOSSY_SEED=17` only that one; a failure names its flow and seed.
"""

import os
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from tests.sip_app import lossy_cluster_flows, lossy_flows, lossy_service_flows, lossy_sip_flows
from tests.sip_app.lossy_world import LossyWorld, run

FLOWS = lossy_sip_flows.FLOWS | lossy_service_flows.FLOWS | lossy_cluster_flows.FLOWS
SEEDS = int(os.environ.get("DIALCAST_LOSSY_SEEDS", "70"))
ONLY = os.environ.get("DIALCAST_LOSSY_SEED")


async def _one(flow: Callable[[LossyWorld], Awaitable[None]], seed: int) -> None:
    with capture_logs() as logs:
        world = LossyWorld(seed)
        await world.start()
        await flow(world)
        await lossy_flows.over(world)
    errors = [line for line in logs if line["log_level"] == "error"]
    assert not errors


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_ends_in_the_right_state_whatever_the_network_does(name: str) -> None:
    for seed in range(SEEDS) if ONLY is None else (int(ONLY),):
        try:
            run(_one(FLOWS[name], seed))
        except BaseException as error:
            error.add_note(f"flow {name}, seed {seed}: DIALCAST_LOSSY_SEED={seed} pytest -k '{name}' {__file__}")
            raise
