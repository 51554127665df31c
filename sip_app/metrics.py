"""What the application server counts (Prometheus). Incrementing is safe from anywhere; nothing here may block.

Every limit a stranger can run into counts in `LIMITED` under the name of its configuration key, so that an operator
sees which one to raise, or whom to block.
"""

from prometheus_client import Counter

LIMITED = Counter("dialcast_sip_limited_total", "Requests, messages or connections refused by a limit", ["limit"])


def limited(limit: str) -> None:
    """Something was refused because of `limit`, the name of a configuration key such as `sip.max_connections`."""
    LIMITED.labels(limit).inc()
