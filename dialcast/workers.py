"""`relay.workers`: several media relays on one host, each a process with ports of its own, so that each has a core.

A worker's settings are those of the file but for its control port, its share of the media ports, and its port for
metrics; it gets them by its environment, so that a reload does not lose them.
"""

from provisioning.config import Config


def media_ports(config: Config, index: int) -> tuple[int, int]:
    """First and last media port of one worker: as many pairs for each, and none of them twice."""
    relay = config.relay
    pairs = (relay.port_max - relay.port_min + 1) // 2 // relay.workers
    first = relay.port_min + 2 * pairs * index
    return first, first + 2 * pairs - 1


def worker_settings(config: Config, index: int) -> dict[str, str]:
    """The environment of one worker, counted from 0; nothing for a relay that is alone."""
    if config.relay.workers == 1:
        return {}
    first, last = media_ports(config, index)
    control, metrics = config.relay.control_port, config.operations.relay_port
    settings = {
        "RELAY__WORKERS": 1,
        "RELAY__PORT_MIN": first,
        "RELAY__PORT_MAX": last,
        "RELAY__CONTROL_PORT": control and control + index,
    }
    if metrics:
        settings["OPERATIONS__RELAY_PORT"] = metrics + index
    return {f"DIALCAST_{name}": str(value) for name, value in settings.items()}
