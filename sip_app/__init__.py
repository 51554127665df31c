"""The network side: what a SIP application server does with a message, from socket to service.

`transport` has the sockets, `element` the transactions and dialogs over them, `server` the path of a request itself:
`access` admits it and knows whose it is, `numbers` what was dialled, `diversion` which way the call goes; then a
target: `registrar`, `proxy`, or a call of our own (`calls`) for the service in `broadcast`. `subscriptions` notifies
whoever follows a state (RFC 6665), at the `pace` set for what goes to many; `xcap` lets users set over HTTP what codes
set by telephone; `cluster` knows the other servers on our store. What strangers could fill or use up has its `bounds`.
`ports` is what all this needs of a store, `events` and `metrics` what it tells.
"""
