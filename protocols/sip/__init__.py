"""The SIP stack of RFC 3261 without I/O, clock or framework.

`uri` sip:, sips: and tel: URIs and number keys; `headers` typed header values; `fields` a message's header lines;
`message` requests and responses, their first check and the making of responses; `views` what can be asked of a
message; `body` the session description among the parts of a body; `framing` messages on a byte stream; `transaction`
the transaction layer, with its tables in `transaction_table`, what makes messages one in `transaction_keys` and what
it tells its user in `events`; `digest` authentication, server and client; `dialog` a dialog as a value; `invite`
reliable provisional responses and the 2xx that waits for its ACK; `session_timer` RFC 4028. What is malformed raises
`errors.SipParseError` (or its child `BadRequest`, which names the answer), and nothing else.
"""
