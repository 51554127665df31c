"""The relays that are compared, a module each: started, given broadcasters and viewers, measured as whole processes."""

from functools import partial
from typing import Final

from bench.fanout.peers.dialcast import dialcast
from bench.fanout.peers.gstreamer import gstreamer
from bench.fanout.peers.janus import janus
from bench.fanout.peers.limit import limit
from bench.fanout.peers.process import Relay
from bench.fanout.peers.rtpengine import rtpengine

RELAYS: Final[dict[str, Relay]] = {
    "limit": Relay(limit, rewrites=False),
    "dialcast": Relay(partial(dialcast, engine="native"), rewrites=True, encrypts=True),
    "python": Relay(partial(dialcast, engine="plain"), rewrites=True, encrypts=True),
    "rtpengine": Relay(rtpengine, rewrites=False, encrypts=True, program="rtpengine", packages="rtpengine-daemon"),
    "janus": Relay(janus, rewrites=True, program="janus", packages="janus"),
    "gstreamer": Relay(
        gstreamer,
        rewrites=False,
        program="gst-launch-1.0",
        packages="gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good",
    ),
}
