"""Whom to believe where there is no ICE: the first valid packet from an address the signalling vouches for.

A phone behind NAT does not send from the address its SDP names, so something must be learnt from packets; learnt
once, or anybody could steal or inject a stream ("RTP bleed").
"""

from dataclasses import dataclass
from typing import Literal

from protocols.net import Address

Policy = Literal["strict", "signalling", "any"]


@dataclass(frozen=True, slots=True)
class Latch:
    """The open question where a leg's packets come from; whoever owns it drops it once it is answered."""

    expected: Address
    """From the SDP: believed at any time, as a packet from there can only be the peer's."""
    client_host: str
    """The signalling peer's address."""
    policy: Policy
    opened_at: float
    window: float
    """Seconds in which another source may be believed."""

    def accepts(self, source: Address, now: float) -> bool:
        """True when a valid packet from `source` answers the question."""
        if source == self.expected:
            return True
        if self.policy == "strict" or now - self.opened_at > self.window:
            return False
        return self.policy == "any" or source.host in (self.expected.host, self.client_host)
