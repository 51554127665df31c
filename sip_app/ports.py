"""What the service logic asks of the outside world, as typing protocols; implemented elsewhere, wired by `dialcast`.

Every write returns only after it is durable: what has been acknowledged to a caller survives a kill -9.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from protocols.call_record import CallRecord
from protocols.records import (
    Binding,
    Broadcast,
    Channel,
    DiversionRules,
    Diversions,
    Node,
    Overlay,
    StoredDialog,
    Subscriber,
)
from provisioning.config import Config


class Credentials(Protocol):
    """Who may authenticate, and with what."""

    async def find(self, aor: str) -> Subscriber | None:
        """The subscriber with this address of record, or None."""
        ...


class Location(Protocol):
    """The location service of RFC 3261 section 10: bindings by address of record."""

    async def bindings(self, aor: str, now: float) -> Sequence[Binding]:
        """Bindings that have not expired at `now` (Unix seconds), best q first."""
        ...

    async def replace(self, aor: str, put: Sequence[Binding], drop: Sequence[str]) -> None:
        """Add or refresh the bindings in `put` (by their `key`) and remove the keys in `drop`, atomically."""
        ...


class DiversionSettings(Protocol):
    """Communication diversion (TS 24.604): the user's own rules, and the broadcast overlay above them."""

    async def get(self, aor: str) -> Diversions:
        """The settings of `aor`; empty when it has none."""
        ...

    async def change(
        self, aor: str, change: Callable[[DiversionRules | None], DiversionRules | None]
    ) -> DiversionRules | None:
        """Give the user's own rules to `change` and store what it returns (None: none), as one step; that is returned.

        What it raises is raised here, and nothing is stored. It must only compute: it may run in another thread, twice.
        """
        ...

    async def set_overlay(self, aor: str, overlay: Overlay) -> None:
        """Put the broadcast's forwarding above the user's own."""
        ...

    async def clear_overlay(self, aor: str, epoch: int | None = None) -> None:
        """Withdraw the overlay (only if it belongs to `epoch`, when given)."""
        ...

    async def overlays(self) -> Sequence[tuple[str, Overlay]]:
        """All overlays, so that a starting server can remove those without a live group."""
        ...


class Channels(Protocol):
    """What broadcasters ask of their viewers."""

    async def get(self, aor: str) -> Channel:
        """The settings of a broadcaster's address of record; the default ones when there are none."""
        ...


class Broadcasts(Protocol):
    """Which channels are live and who owns them; a channel is claimed atomically."""

    async def claim(self, broadcast: Broadcast, now: float) -> Broadcast | None:
        """Claim the channel. None: it is ours now. Else: the live claim that stands (lease not run out)."""
        ...

    async def next_epoch(self, channel: str) -> int:
        """A number larger than every epoch this channel ever had, durable."""
        ...

    async def update(self, broadcast: Broadcast) -> bool:
        """Rewrite the claim of this channel and epoch (state, lease, media). False, and nothing is written, if another
        epoch stands or another server has it."""
        ...

    async def take_over(self, broadcast: Broadcast, from_as: str) -> bool:
        """Make `broadcast.as_id` the owner of this channel and epoch if `from_as` still is; True if that was so."""
        ...

    async def release(self, channel: str, epoch: int, as_id: str) -> None:
        """Remove the claim of this epoch if that server has it."""
        ...

    async def get(self, channel: str) -> Broadcast | None:
        """The claim that stands for the channel, or None."""
        ...

    async def all(self) -> Sequence[Broadcast]:
        """Every claim that stands."""
        ...

    async def elsewhere(self, as_id: str) -> Mapping[str, int]:
        """The epochs of the broadcasts that others than `as_id` hold, by channel."""
        ...


class Nodes(Protocol):
    """The application servers that share the store."""

    async def renew(self, node: Node) -> None:
        """Say that this server is there until `node.lease_until`."""
        ...

    async def all(self) -> Sequence[Node]:
        """Every server that ever said so, and has not taken its leave."""
        ...

    async def leave(self, as_id: str) -> None:
        """This server stops for good."""
        ...


class Dialogs(Protocol):
    """Confirmed dialogs, so that a restarted server holds its calls again."""

    async def save(self, dialog: StoredDialog) -> None:
        """Insert or rewrite one dialog. Raises OSError if another server has taken it over."""
        ...

    async def delete(self, dialog_id: str, as_id: str) -> None:
        """Forget one dialog if that server has it."""
        ...

    async def owned_by(self, as_id: str) -> Sequence[StoredDialog]:
        """All dialogs of one application server."""
        ...

    async def find(self, dialog_id: str) -> StoredDialog | None:
        """One dialog, whoever owns it."""
        ...

    async def adopt(self, group_id: str, from_as: str, to_as: str) -> Sequence[StoredDialog]:
        """Give all dialogs of a group that one server owns to another; they as they are now."""
        ...


class Secrets(Protocol):
    """Server-held secrets, e.g. the nonce key, made once and kept."""

    async def secret(self, name: str) -> bytes:
        """The 32-byte secret of this name, created at first use."""
        ...


class CallRecords(Protocol):
    """The records of calls, for bills and audits."""

    async def write(self, record: CallRecord) -> None:
        """Insert or rewrite one record."""
        ...

    async def unfinished(self, as_id: str) -> Sequence[CallRecord]:
        """The records of one server's calls that have no end yet."""
        ...


class Reconfigurable(Protocol):
    """A part whose settings change while it serves (SIGHUP). `ApplicationServer.reconfigure` tells all of them."""

    def reconfigure(self, config: Config) -> None:
        """From now on live by this configuration: never raises, touches no call, drops nothing that was granted."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """All of them together, as the composition root hands them over."""

    credentials: Credentials
    location: Location
    diversions: DiversionSettings
    broadcasts: Broadcasts
    dialogs: Dialogs
    secrets: Secrets
    channels: Channels
    nodes: Nodes
