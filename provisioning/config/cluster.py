"""The section about several application servers on one store."""

from typing import Annotated

from pydantic import Field

from provisioning.config.section import Section


class ClusterConfig(Section):
    """Several application servers that share a database server (`store.url`); without one there is no cluster."""

    lease: Annotated[float, Field(ge=2, le=60)] = 8
    """Seconds after its last sign of life in the store that a server counts as dead and the others take its
    broadcasts over; renewed four times in it. Keep it well below `service.orphan_grace`: that long the relays keep
    the media flowing. Shorter takes over sooner, and sooner by mistake. Each waits for it by its own clock alone."""
