"""A clip made long by repetition, for phones that stop at a file's end: the same coded pictures, nothing re-encoded."""

from pathlib import Path

import av


def repeated(clip: Path, times: int, target: Path) -> Path:
    """Writes `clip`'s picture track `times` times in a row to `target`."""
    with av.open(str(target), "w") as output:
        stream = None
        offset = 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                track = source.streams.video[0]
                stream = stream or output.add_stream_from_template(track)
                end = offset
                for packet in source.demux(track):
                    if packet.pts is None or packet.dts is None or packet.duration is None:
                        continue  # the demuxer's last, empty packet
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    end = max(end, packet.pts + packet.duration)
                    output.mux(packet)
                offset = end
    return target
