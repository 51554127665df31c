"""What telephones do, and should not do, played by SIPp against a server: `python -m sipp_scenarios` (see README.md).

`parts.py` and `scenarios/` write the files that SIPp reads, one for each phone; `sipp.py` runs one of them, `media.py`
is the phone's camera, microphone, eyes and ears beside it, `calls.py` single calls made of both. `behaviours/` is what
the suite plays, `world.py` what each behaviour gets for it, `own_server.py` the server, `suite.py` plays and judges.
"""
