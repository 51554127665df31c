"""What single phones do, by name: `SCENARIOS`. A behaviour (`behaviours/`) is one or several of them at once."""

from typing import Final

from sipp_scenarios.parts import Scenario
from sipp_scenarios.scenarios.broadcasts import SCENARIOS as BROADCASTS
from sipp_scenarios.scenarios.calls import SCENARIOS as CALLS
from sipp_scenarios.scenarios.events import SCENARIOS as EVENTS
from sipp_scenarios.scenarios.misbehaving import SCENARIOS as MISBEHAVING
from sipp_scenarios.scenarios.registrations import SCENARIOS as REGISTRATIONS

SCENARIOS: Final[dict[str, Scenario]] = {**REGISTRATIONS, **CALLS, **BROADCASTS, **EVENTS, **MISBEHAVING}
