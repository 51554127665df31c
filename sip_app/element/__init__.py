"""The SIP element: transports, transactions and dialogs tied together (RFC 3261 section 17)."""
