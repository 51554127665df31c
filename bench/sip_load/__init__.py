"""CPU time of SIP servers for the same work, under the same SIPp scenarios; see `__main__`."""
