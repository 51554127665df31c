"""All harnesses by name."""

from fuzz import media, service, signalling
from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target for module in (signalling, media, service) for target in module.TARGETS
}
