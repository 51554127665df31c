"""Media on the wire: `packet` and `sequence` (RTP), `classify` (what a datagram is), `rtcp`, `feedback`, `reception`
(control and statistics, RFC 3550/4585/5104), `h264` (RFC 6184) and `amr` (RFC 4867) payload formats.
"""
