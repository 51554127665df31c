"""PINs as they are kept: scrypt (RFC 7914) with a salt of their own. What is kept is as secret as the PIN itself, for
so few digits are soon tried out; scrypt only makes a look at the store not enough.

`hash_pin` and `check_pin` take tens of milliseconds and 16 MB: run them in a thread.
"""

import hashlib
import hmac
import re

PIN_DIGITS = re.compile("[0-9]{4,12}")
"""What a PIN looks like."""
_COST, _BLOCK = 1 << 14, 8


def hash_pin(digits: str, salt: bytes) -> str:
    """What to keep of a PIN: `salt:hash`, in hex. `salt` is 16 random bytes."""
    return f"{salt.hex()}:{_derive(digits, salt).hex()}"


def check_pin(kept: str, digits: str) -> bool:
    """True if `digits` are the PIN that was kept. ValueError if that is unreadable."""
    salt, _, derived = kept.partition(":")
    return hmac.compare_digest(_derive(digits, bytes.fromhex(salt)), bytes.fromhex(derived))


def _derive(digits: str, salt: bytes) -> bytes:
    return hashlib.scrypt(digits.encode("utf-8", "replace"), salt=salt, n=_COST, r=_BLOCK, p=1, dklen=32)
