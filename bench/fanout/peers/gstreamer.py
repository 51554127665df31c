"""GStreamer: `udpsrc ! multiudpsink`, a pipeline of two branches for each group. It copies, and rewrites nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.fanout.peers.process import HOST, INLET_PORTS, Inlet, Places, Running, ports_in_a_row, started

BUFFER_BYTES: Final = 2 << 20


@contextmanager
def gstreamer(folder: Path, places: Places) -> Iterator[Running]:
    """gst-launch-1.0 with everything in one process; the clock is out of it (sync, async)."""
    first = ports_in_a_row(2 * places.groups, *INLET_PORTS)
    command = ["gst-launch-1.0"]
    for group in range(places.groups):
        for medium in range(2):
            ports = (places.viewer(group, viewer) + medium for viewer in range(places.viewers))
            command += [
                *("udpsrc", f"address={HOST}", f"port={first + 2 * group + medium}", f"buffer-size={BUFFER_BYTES}"),
                *("!", "multiudpsink", f"clients={','.join(f'{HOST}:{port}' for port in ports)}"),
                *("sync=false", "async=false", f"buffer-size={BUFFER_BYTES}"),
            ]
    with started(command, "Setting pipeline to PLAYING|New clock", folder, within=60) as (pid, _):
        yield Running([Inlet(first + 2 * group, first + 2 * group + 1) for group in range(places.groups)], pid)
