"""Sound devices through PortAudio, 20 ms at a time; whatever is wrong with one is a SourceError of one line."""

from collections.abc import Callable
from typing import Any, Final, Literal

from terminal_client.streams import SourceError

DEFAULT_NAMES: Final = ("default", "device")


def open_stream(
    kind: Literal["microphone", "speaker"],
    name: str,
    rate: int,
    block: int,
    callback: Callable[[Any, int, Any, Any], None],
) -> Any:
    """A started mono int16 stream of the device with this name or index; `default` is the system's.

    `rate` counts samples a second, `block` samples a callback. Raises SourceError.
    """
    device = None if name in DEFAULT_NAMES else int(name) if name.isdigit() else name
    try:
        import sounddevice  # noqa: PLC0415  PortAudio is missing on servers, where files are used instead
    except OSError as error:
        raise SourceError(f"{kind} {name}: no sound device ({error}); use --{kind} FILE or none") from None
    make = sounddevice.InputStream if kind == "microphone" else sounddevice.OutputStream
    try:
        stream = make(rate, block, device, 1, "int16", callback=callback)
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:  # ValueError: a name of no device, or of several
        words = " ".join(str(error).split())
        raise SourceError(f"{kind} {name}: no such sound device or file ({words}); use --{kind} FILE or none") from None
    return stream
