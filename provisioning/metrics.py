"""What the store counts (Prometheus)."""

from prometheus_client import Counter, Gauge, Histogram

COMMIT = Histogram(
    "dialcast_store_commit_seconds",
    "One transaction, from its first statement to its return from the disk",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)
OPERATIONS = Counter("dialcast_store_operations", "Reads and writes asked of the database; a transaction holds several")
WAITING = Gauge("dialcast_store_waiting", "Operations waiting for the database")
