"""The broadcast service behind the service number.

`service` the calls (go live, watch), `in_call` what happens in them once they stand; `group` what is known of one
broadcast and its viewers; `ending` loss, grace and the orderly end; `recovery` holding everything again after a restart
or a lost relay; `media` offer and answer; `relay_link` the control link to the relay; `keyframe_info` picture requests
by SIP INFO; `conference`, `presence` and `messages` what others may follow and say of a broadcast, hung onto the server
by `following`; `policy` who may watch and `pin` how that is asked by voice;
`operator` the Unix socket of `dialcast live`.
"""
