"""What is played, by name (`CATALOGUE`): flows as they should be, misbehaving phones, and load."""

from sipp_scenarios.behaviours import broadcasts, calls, diversions, events, load, misbehaving, registrations, strangers
from sipp_scenarios.behaviours.catalogue import CATALOGUE, Behaviour

__all__ = [
    "CATALOGUE",
    "Behaviour",
    "broadcasts",
    "calls",
    "diversions",
    "events",
    "load",
    "misbehaving",
    "registrations",
    "strangers",
]
