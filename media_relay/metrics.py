"""What the relay counts (Prometheus). Packets are counted by the engine (`media_relay.collector`)."""

from prometheus_client import Counter

MISSED = Counter("dialcast_relay_missed_packets", "Packets broadcasters were asked to send again (NACK)")
NACKED = Counter("dialcast_relay_nacked_packets", "Packets viewers asked for again (NACK)")
PROMPTS = Counter("dialcast_relay_prompts", "Wishes to speak prompts to a leg, by how they ended", ["cause"])
KEYS = Counter("dialcast_relay_keys", "Keys pressed on announcements' legs")
LIMITED = Counter(
    "dialcast_relay_limited", "Commands and control links refused by a limit, the name of its setting", ["limit"]
)
KEYFRAMES_ASKED = Counter(
    "dialcast_relay_keyframe_requests", "Keyframes asked of broadcasters, by means (pli, fir, info)", ["by"]
)
LATCH_REFUSED = Counter("dialcast_relay_latch_refused", "Media from a source a leg may not be latched to, dropped")
