"""Wire formats and state machines without I/O, clock or framework: bytes and events in, bytes and events out.

`net` addresses and flows, `sip/` the SIP stack, `sdp` session descriptions, `rtp/` media and its payload
formats, `join` the STUN join, `conference_info`, `presence_info`, `media_control`, `text_message` bodies of SIP
messages, `control` the link between application server and relay.
"""
