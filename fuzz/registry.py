"""All harnesses by name."""

from fuzz import media, service, signalling, websocket, xcap
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target for module in (signalling, websocket, media, service, xcap) for target in module.TARGETS
}
