"""All harnesses by name."""

from fuzz import media, operating, service, signalling, websocket, xcap
from fuzz.native import targets as native
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (signalling, websocket, media, service, xcap, operating, native)
    for target in module.TARGETS
}
