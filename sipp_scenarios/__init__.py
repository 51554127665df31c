"""SIPp scenarios named by behaviour, and a runner that gives each of them one command (see README.md).

`sipp.py` runs the program with one scenario file, `media.py` is the stock phone's camera, microphone, eyes and ears
beside it, `behaviours.py` puts both together, one function a behaviour, and `run.py` is the command line.
"""
