"""All harnesses by name."""

from fuzz import media, operating, service, signalling, websocket, xcap
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (signalling, websocket, media, service, xcap, operating)
    for target in module.TARGETS
}
