"""What single phones do, by name: `SCENARIOS`. A behaviour (`behaviours/`) is one or several of them at once."""

from typing import Final

from sipp_scenarios.parts import Scenario
from sipp_scenarios.scenarios import broadcasts, calls, events, misbehaving, registrations

SCENARIOS: Final[dict[str, Scenario]] = {
    **registrations.SCENARIOS,
    **calls.SCENARIOS,
    **broadcasts.SCENARIOS,
    **events.SCENARIOS,
    **misbehaving.SCENARIOS,
}
