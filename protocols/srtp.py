"""What SRTP (RFC 3711) is keyed with, one direction of one medium; the packets are the engine's business.

Profiles are named as in `a=crypto` (RFC 4568 section 6.2, RFC 7714 section 14.2). Nothing here ends up in a log:
the key is left out of every repr.
"""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Base64Bytes

Profile = Literal["AEAD_AES_128_GCM", "AES_CM_128_HMAC_SHA1_80"]
KEY_BYTES: dict[Profile, int] = {"AEAD_AES_128_GCM": 16 + 12, "AES_CM_128_HMAC_SHA1_80": 16 + 14}
"""Master key and master salt together (RFC 7714 section 12, RFC 3711 section 8.2)."""


@dataclass(frozen=True, slots=True)
class Srtp:
    """Keys of one direction of one medium. Base64 in JSON, as in `a=crypto`'s `inline:`."""

    profile: Profile
    master_key_and_salt: Base64Bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown profile, and a key that is not as long as the profile's."""
        wanted = KEY_BYTES.get(self.profile)
        if wanted is None:
            raise ValueError("no SRTP profile that is known")
        if len(self.master_key_and_salt) != wanted:
            raise ValueError(f"{self.profile} takes {wanted} bytes of master key and salt")
