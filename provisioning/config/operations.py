"""The section about running it: the local HTTP port for metrics and health, and the records of calls."""

from pathlib import Path

from provisioning.config.section import Section
from provisioning.value_types import Delay, Host, Port, Seconds


class OperationsConfig(Section):
    """Metrics, health and call records."""

    bind: Host = "127.0.0.1"
    """Numeric address on which `/metrics` and `/healthz` are served. There is no password: keep it on
    loopback or behind a proxy of yours, for the figures tell how much is called."""
    as_port: Port | None = 9460
    """TCP port of both for the application server; 0 takes a free one, null serves none. Where it is taken
    the server runs without and says so."""
    relay_port: Port | None = 9461
    """The same for the media relay."""
    health_timeout: Seconds = 2
    """Seconds a write to the store may take before `/healthz` answers 503."""
    loop_lag_max: Seconds = 1
    """Seconds the process may have been late at its work within the last ten before `/healthz` answers
    503."""
    call_file: Path | None = Path("calls.jsonl")
    """File that gets every call record as lines of JSON, relative to `data_dir`; null writes none. It
    grows until you rotate it; the table does not."""
    call_retention_days: Delay = 90
    """Days after which a record leaves the store; 0 keeps all. One takes about 500 bytes."""
