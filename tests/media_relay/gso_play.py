"""A broadcast to three viewers, the second where no UDP GSO works: run by `test_engine_gso` under `gso_refused.c`.

Says as JSON which packets each viewer got, and how many runs were refused and sent after each frame.
"""

import ctypes
import json
import sys

from media_relay.engine import EngineLeg, GroupSpec, Inlet, Outlet
from media_relay.engine.native import NativeEngine
from media_relay.sockets import open_udp
from protocols.net import Address
from protocols.rtp.packet import RtpPacket

HOST, GROUP, FRAMES, PACKETS = "127.0.0.1", "1001", 4, 40
VIEWERS, REFUSED = 3, 1


def main(error: int) -> None:
    kernel = ctypes.CDLL(None)
    port, *viewers = (open_udp(Address(HOST, 0), buffer_bytes=4_000_000, dscp=0) for _ in range(1 + VIEWERS))
    ctypes.c_int.in_dll(kernel, "refused_port").value = viewers[REFUSED].getsockname()[1]
    ctypes.c_int.in_dll(kernel, "refused_error").value = error
    counts = [ctypes.c_int.in_dll(kernel, name) for name in ("runs_refused", "runs_sent")]
    engine = NativeEngine(threaded=False)
    engine.set_group(GroupSpec(GROUP))
    source = Inlet("audio", port, Address(HOST, 9), 0, forward=True, codec="PCMU")
    engine.set_leg(EngineLeg(GROUP, "source", (source,)), 0.0)
    for number, viewer in enumerate(viewers):
        outlet = Outlet("audio", port, Address(*viewer.getsockname()), 0, number)
        engine.set_leg(EngineLeg(GROUP, f"viewer-{number}", (), (outlet,)), 0.0)
    got: list[list[int]] = [[] for _ in viewers]
    runs = []
    for frame in range(FRAMES):
        numbers = range(frame * PACKETS, (frame + 1) * PACKETS)
        burst = [RtpPacket(0, n, 160 * n, 7, n.to_bytes(2, "big") * 400).serialise() for n in numbers]
        engine.inject(GROUP, "audio", 0, burst, frame / 30)
        runs.append([count.value for count in counts])
        for viewer, numbers_got in zip(viewers, got, strict=True):
            for _ in range(PACKETS):
                numbers_got.append(int.from_bytes(viewer.recv(2048)[-2:], "big"))
    sent = [state.packets for n in range(VIEWERS) if (state := engine.leg(GROUP, f"viewer-{n}")) is not None]
    engine.close()
    print(json.dumps({"got": got, "runs": runs, "sent": sent}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
