"""What a relay's fan-out costs, beside other relays and the bare system calls; see `python -m bench.fanout --help`."""
