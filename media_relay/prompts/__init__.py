"""The recorded prompts: a file a prompt, language and codec, cut into the payloads a leg can be sent.

G.711 mu-law as raw octets, AMR 12.2 kbit/s in storage format (RFC 4867 section 5); A-law and AMR's packing are made
from these. `record` made the files; LICENCE.md says from what.
"""

from functools import cache
from pathlib import Path

from protocols.control import ControlError, MediaSpec
from protocols.prompts import Language, Prompt
from protocols.rtp import amr
from protocols.rtp.g711 import ulaw_to_alaw
from protocols.sdp import AmrFormat

FOLDER = Path(__file__).parent
FRAME_OCTETS = 160
"""20 ms of G.711."""


def payloads(name: Prompt, language: Language, spec: MediaSpec) -> tuple[bytes, ...]:
    """A prompt as RTP payloads of 20 ms in the format that was negotiated. ControlError for one without recordings."""
    match spec.codec.upper():
        case "PCMU" | "PCMA" as codec:
            return _pcm(name, language, alaw=codec == "PCMA")
        case "AMR" if (fmt := AmrFormat.from_fmtp(spec.fmtp)).speaks_best and fmt.usable:
            return _amr(name, language, octet_align=fmt.octet_align)
    raise ControlError("unsupported", f"no prompts in {spec.codec} {spec.fmtp}")


@cache
def _pcm(name: Prompt, language: Language, *, alaw: bool) -> tuple[bytes, ...]:
    data = (FOLDER / language / f"{name}.ulaw").read_bytes()
    sound = ulaw_to_alaw(data) if alaw else data
    return tuple(sound[at : at + FRAME_OCTETS] for at in range(0, len(sound), FRAME_OCTETS))


@cache
def _amr(name: Prompt, language: Language, *, octet_align: bool) -> tuple[bytes, ...]:
    frames = amr.read_storage((FOLDER / language / f"{name}.amr").read_bytes())
    return tuple(amr.build([frame], octet_align=octet_align) for frame in frames)
