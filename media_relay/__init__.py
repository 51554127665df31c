"""The media relay: takes one broadcaster's packets in and sends them to every viewer of its group.

`server` puts it together; `control_server` and `amp_stream` are the AS's end of the control link; `groups`, `legs`
and `commands` hold who is in which group; `ports` and `sockets` the UDP sockets; `join` and `latching` decide whom
to believe; `liveness`, `feedback` and `keyframes` look after what flows; `engine/` moves the packets, `numbering`
gives them their numbers.
"""
