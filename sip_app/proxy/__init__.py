"""Requests that go on to somebody else (RFC 3261 section 16): where to, by which way, one or several at once."""
