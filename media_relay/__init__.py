"""The media relay: takes one broadcaster's packets in and sends them to every viewer of its group.

`server` runs it; `control_server` and `amp_stream` are its end of the control link; `relay` does what commands ask,
on `groups` and `legs`; `ports` and `sockets` are the UDP side; `traffic` takes what arrives, believed as far as a
join (`protocols.join`) or `latching` allows; `liveness`, `feedback` and `keyframes` look after what flows;
`announcements` speaks `prompts` and hears keys; `engine/` moves the packets, `numbering` gives them their numbers.
"""
