"""The one error every SIP parser here raises, and its child that says which answer the sender deserves."""


class SipParseError(ValueError):
    """What arrived is not SIP, or not the header, URI or value that was asked for."""


class BadRequest(SipParseError):
    """A request that could be read, but not served: `status` and `reason` are the answer (RFC 3261 section 8.2)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
