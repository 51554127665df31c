"""Communication diversion (3GPP TS 24.604): the way of a call, its history and notices, the codes that set it."""
