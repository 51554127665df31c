"""The network side: a SIP application server, read along the path of a request.

`transport` sockets, `endpoint` transactions and dialogs, `server` the path itself: `admission`, `identity`,
`numbers`, `diversion` (a call goes its way by `call_path`, told by `history` and `notices`), then a target:
`registrar`, `codes`, `onward` and `proxy` (with `fork` and `routes`), or a call of our own (`calls`, `dialogs`,
`session`, `invite_server`) for the service in `broadcast`, some of them spoken to by `announcements`. `capabilities`
is what we can do and hold requests to. What strangers could fill or use up has its `bounds`. `subscriptions` notifies
whoever follows a state (RFC 6665), at the `pace` set for what goes to many. `xcap` lets users set over HTTP what
`codes` set by telephone. `cluster` knows the other servers on our store: `handover` sends them what is about their
broadcasts, `strays` what was to reach one that may be dead. `merged` refuses the same request by a second way.
`ports` is what all this needs of a store, `events` what it tells.
"""
