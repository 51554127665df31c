"""Calls that end here: the INVITE, its dialog, the session agreed in it (RFC 3261 section 13, RFC 3262, RFC 4028)."""
