"""Makes the prompt files anew: `apt-get install flite espeak-ng`, then `python -m media_relay.prompts.record`.

The relay itself never needs this. English is spoken by flite's voice `rms`, of its voices the one a speech recogniser
understands best by far; Chinese by espeak-ng from pinyin with tones, because of characters Debian's 1.51 misreads some
(这 as shè, 重新 as zhòngxīn; its plain voice `cmn` even spells English letters). Prompts are 8 kHz mono, without
silence at their ends, and equally loud.
"""

import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from media_relay.prompts import FOLDER, FRAME_OCTETS
from protocols.prompts import Prompt, digits
from protocols.rtp.amr import STORAGE_MAGIC
from protocols.rtp.g711 import to_ulaw

Samples = NDArray[np.int16]
RATE = 8000
LOUDNESS = 0.1
"""RMS of every prompt where it speaks, of full scale: -20 dB."""
CREST = 0.9
"""No sample above this, of full scale."""
QUIET = 0.01
"""Below this, of full scale, is silence."""
LEAD, TAIL = 0.04, 0.14
"""Seconds of silence before and after: what keeps two prompts in a row apart."""

PROGRAMS = ("flite", "espeak-ng")
"""Named like their Debian packages."""


def _digits(*words: str) -> dict[Prompt, str]:
    return dict(zip(digits("0123456789"), words, strict=True))


ENGLISH: dict[Prompt, str] = {
    "active": "Call forwarding is active.",
    "deactivated": "Call forwarding is switched off.",
    "erased": "Call forwarding has been erased.",
    "not-registered": "No call forwarding is registered.",
    "forwarded-to": "Calls are forwarded to.",
    "invalid": "The code you dialed is not valid.",
    "pin-enter": "Please enter your PIN, followed by the pound key.",
    "pin-wrong": "This PIN is wrong, please try again.",
    "pin-failed": "Too many wrong PINs, goodbye.",
    "private": "Sorry, this broadcast is private.",
    "ended": "The broadcast has ended.",
    "full": "The broadcast has too many viewers, please try again later.",
    **_digits("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
}
CHINESE: dict[Prompt, str] = {
    "active": "hu1jiao4 zhuan3yi2 yi3 ji1huo2.",  # 呼叫转移已激活。
    "deactivated": "hu1jiao4 zhuan3yi2 yi3 ting2yong4.",  # 呼叫转移已停用。
    "erased": "hu1jiao4 zhuan3yi2 yi3 shan1chu2.",  # 呼叫转移已删除。
    "not-registered": "mei2you3 she4zhi4 hu1jiao4 zhuan3yi2.",  # 没有设置呼叫转移。
    "forwarded-to": "lai2dian4 jiang1 zhuan3yi2 dao4,",  # 来电将转移到，
    "invalid": "nin2 shu1ru4 de5 dai4ma3 wu2xiao4.",  # 您输入的代码无效。
    "pin-enter": "qing3 shu1ru4 mi4ma3, an4 jing3hao4 jian4 jie2shu4.",  # 请输入密码，按井号键结束。
    "pin-wrong": "mi4ma3 cuo4wu4, qing3 chong2xin1 shu1ru4.",  # 密码错误，请重新输入。
    "pin-failed": "mi4ma3 cuo4wu4 ci4shu4 guo4duo1, zai4jian4.",  # 密码错误次数过多，再见。
    "private": "zhe4 shi4 si1ren2 zhi2bo1, nin2 wu2quan2 guan1kan4.",  # 这是私人直播，您无权观看。
    "ended": "zhi2bo1 yi3jing1 jie2shu4.",  # 直播已经结束。
    "full": "zhi2bo1 ren2shu4 yi2 man3, qing3 shao1hou4 zai4 shi4.",  # 直播人数已满，请稍后再试。
    # One is yāo (幺), as digits of numbers are read: yī is too like seven, qī.
    **_digits("ling2", "yao1", "er4", "san1", "si4", "wu3", "liu4", "qi1", "ba1", "jiu3"),
}


def english(text: str, path: Path) -> None:
    """Write a text's sound to a file."""
    subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", path], check=True)


def chinese(text: str, path: Path) -> None:
    """The same of pinyin: slower than by default, and its tones as wide apart as they go (7 semitones instead of 4)."""
    wide = f'<prosody range="+100%">{text}</prosody>'
    subprocess.run(["espeak-ng", "-v", "cmn-latn-pinyin", "-s", "140", "-p", "70", "-m", "-w", path, wide], check=True)


def read(path: Path) -> Samples:
    """Any sound file as 8 kHz mono."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.int16)


def finished(spoken: Samples) -> Samples:
    """A sound trimmed, brought to the loudness, padded to whole frames."""
    loud = np.flatnonzero(np.abs(spoken.astype(np.int32)) > QUIET * 32768)
    speech = spoken[loud[0] : loud[-1] + 1] / 32768
    levels = np.mean(speech[: len(speech) // FRAME_OCTETS * FRAME_OCTETS].reshape(-1, FRAME_OCTETS) ** 2, axis=1)
    gain = min(LOUDNESS / math.sqrt(np.mean(levels[levels > QUIET**2])), CREST / np.max(np.abs(speech)))
    sound = np.concatenate([np.zeros(round(LEAD * RATE)), speech * gain, np.zeros(round(TAIL * RATE))])
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


def main() -> None:
    """Write every file of both languages."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        sys.exit(f"not found: {', '.join(missing)}; on Debian: apt-get install {' '.join(PROGRAMS)}")
    with tempfile.TemporaryDirectory() as scratch:
        spoken = Path(scratch) / "spoken.wav"
        for language, texts, speak in (("en", ENGLISH, english), ("zh", CHINESE, chinese)):
            for name, text in texts.items():
                speak(text, spoken)
                sound = finished(read(spoken))
                (FOLDER / language / f"{name}.ulaw").write_bytes(to_ulaw(sound.tolist()))
                (FOLDER / language / f"{name}.amr").write_bytes(encode_amr(sound))


if __name__ == "__main__":
    main()
