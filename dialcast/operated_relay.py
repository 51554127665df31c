"""A media relay as its operator sees it."""

from prometheus_client import REGISTRY

from dialcast.monitor import Finding
from media_relay.collector import RelayCollector
from media_relay.server import RelayServer
from provisioning.config import Config


class OperatedRelay:
    """`dialcast.operating.Operated` for a media relay."""

    def __init__(self, server: RelayServer) -> None:
        self._server = server
        REGISTRY.register(RelayCollector(server.relay, lambda: server.links))

    async def health(self) -> dict[str, Finding]:
        """The control link is listened for; that no server has come yet is no fault."""
        return {"control": {"ok": self._server.listening, "links": self._server.links}}

    async def refresh(self) -> None:
        """Everything is at hand."""

    async def apply(self, config: Config) -> None:
        """See Operated."""
        self._server.reconfigure(config)
