"""The SIP stack of RFC 3261 without I/O, clock or framework.

`uri` sip:, sips: and tel: URIs and number keys; `headers` typed header values; `message` requests and responses;
`framing` messages on a byte stream; `transaction` the four state machines and their table; `digest` authentication;
`dialog` a dialog as a value; `invite` reliable provisional responses and the 2xx that waits for its ACK;
`session_timer` RFC 4028. Whatever is malformed raises `errors.SipParseError`, and nothing else.
"""
