"""Where pictures come from: a camera, a video file looped, or a synthetic source that needs no device at all.

Every source answers the same question: the picture due at tick `index` of its own clock (ticks are 1/fps apart).
A late caller simply asks for a later index and the source skips: live video never plays catch-up. Pictures are
planar yuv420p arrays of shape (height * 3 // 2, width), scaled to fill the asked size and cropped in the middle.
"""

import math
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import av
import av.error
import av.filter
import cv2
import numpy as np

from terminal_client.stamp import Plane
from terminal_client.streams import SourceError

SYNTHETIC: Final = "synthetic"
CAMERA_PATIENCE: Final = 3.0
"""Seconds without a picture after which a camera counts as failed."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One captured picture. `index` counts from the start of the source and never repeats, loop or not."""

    index: int
    planes: Plane


class PictureSource(Protocol):
    """A camera, file or generator. Used from one thread only; `read` may block for up to a frame's time."""

    def read(self, index: int) -> Picture | None:
        """The picture due at tick `index`, or None at the source's end. Raises SourceError if the device fails."""

    def close(self) -> None:
        """Let go of the device or file."""


def open_camera(name: str, width: int, height: int, fps: int, *, loop: bool = True) -> PictureSource:
    """The source a user named: `synthetic`, an OpenCV device index, or a video file. Raises SourceError."""
    if name == SYNTHETIC:
        return GeneratedPictures(width, height, fps)
    if name.isdigit():
        return Camera(int(name), width, height)
    return Clip(Path(name), width, height, fps, loop=loop)


def clip_pictures(path: Path, width: int, height: int, fps: int) -> Generator[Plane, None, None]:
    """The pictures of one pass through a video file, scaled, cropped and brought to `fps`; always the same ones.

    Raises SourceError if the file cannot be read as video.
    """
    try:
        container = av.open(str(path))
    except (OSError, av.error.FFmpegError) as error:
        raise SourceError(f"camera {path}: {error.strerror or error}") from error
    with container:
        if not container.streams.video:
            raise SourceError(f"camera {path}: no video in this file")
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        steps = [graph.add_buffer(template=stream)] + [
            graph.add(name, arguments)
            for name, arguments in (
                ("fps", f"fps={fps}:round=near"),
                ("scale", f"{width}:{height}:force_original_aspect_ratio=increase:flags=bicubic"),
                ("crop", f"{width}:{height}"),
                ("format", "yuv420p"),
                ("buffersink", None),
            )
        ]
        graph.link_nodes(*steps).configure()
        try:
            for frame in container.decode(stream):
                graph.push(frame)
                yield from _filtered(graph)
            graph.push(None)
            yield from _filtered(graph)
        except av.error.InvalidDataError as error:
            raise SourceError(f"camera {path}: damaged video ({error.strerror})") from error


class Clip:
    """A video file played at its own speed, again and again unless told otherwise."""

    def __init__(self, path: Path, width: int, height: int, fps: int, *, loop: bool = True) -> None:
        self._arguments = (path, width, height, fps)
        self._loop = loop
        self._pictures = clip_pictures(*self._arguments)
        self._next_index = 0
        self._pending: Plane | None = next(self._pictures, None)
        if self._pending is None:
            raise SourceError(f"camera {path}: no picture in this file")

    def read(self, index: int) -> Picture | None:
        """The picture due at tick `index`; earlier ones not yet read are skipped."""
        planes = self._take()
        while planes is not None and self._next_index <= index:
            planes = self._take()
        return None if planes is None else Picture(self._next_index - 1, planes)

    def close(self) -> None:
        """Close the file."""
        self._pictures.close()

    def _take(self) -> Plane | None:
        planes, self._pending = self._pending, None
        if planes is None:
            planes = next(self._pictures, None)
        if planes is None and self._loop:
            self._pictures = clip_pictures(*self._arguments)
            planes = next(self._pictures, None)
        self._next_index += planes is not None
        return planes


class GeneratedPictures:
    """FFmpeg's moving test card: needs no device and no file, and every picture differs from the one before."""

    def __init__(self, width: int, height: int, fps: int) -> None:
        graph = av.filter.Graph()
        card = graph.add("testsrc2", f"size={width}x{height}:rate={fps}")
        graph.link_nodes(card, graph.add("format", "yuv420p"), graph.add("buffersink")).configure()
        self._graph = graph
        self._next_index = 0

    def read(self, index: int) -> Picture | None:
        """The picture due at tick `index`."""
        while True:
            frame = self._graph.pull()
            assert isinstance(frame, av.VideoFrame)
            self._next_index += 1
            if self._next_index > index:
                return Picture(self._next_index - 1, _planes(frame))

    def close(self) -> None:
        """Nothing to let go of."""


class Camera:
    """A capture device through OpenCV, read by its own thread so that its queue never makes the picture old."""

    def __init__(self, device: int, width: int, height: int) -> None:
        self._name = f"camera {device}"
        self._size = (width, height)
        # OpenCV warns on stderr, where one line of ours says what is wrong.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(device)
        if not self._capture.isOpened():
            raise SourceError(f"{self._name}: cannot be opened; is it plugged in and free? (or use --camera FILE)")
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self._latest: Plane | None = None
        self._fresh = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._grab, name=self._name, daemon=True)
        self._thread.start()

    def read(self, index: int) -> Picture | None:
        """The newest picture not yet taken; `index` is passed through, the device keeps its own pace."""
        if not self._fresh.wait(CAMERA_PATIENCE) or self._latest is None:
            raise SourceError(f"{self._name}: delivers no picture any more")
        self._fresh.clear()
        bgr = cover(self._latest, *self._size)
        return Picture(index, cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420).astype(np.uint8, copy=False))

    def close(self) -> None:
        """Stop the thread and free the device."""
        self._closing.set()
        self._thread.join(CAMERA_PATIENCE)
        self._capture.release()

    def _grab(self) -> None:
        while not self._closing.is_set():
            taken, image = self._capture.read()
            if not taken:
                self._latest = None
                self._fresh.set()
                return
            self._latest = image.astype(np.uint8, copy=False)
            self._fresh.set()


def cover(image: Plane, width: int, height: int) -> Plane:
    """The image (height, width, 3) scaled to fill width x height, its overhang cropped evenly."""
    scale = max(width / image.shape[1], height / image.shape[0])
    scaled = cv2.resize(image, (math.ceil(image.shape[1] * scale), math.ceil(image.shape[0] * scale)))
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width], dtype=np.uint8)


def _filtered(graph: av.filter.Graph) -> Iterator[Plane]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, av.VideoFrame)
        yield _planes(frame)


def _planes(frame: av.VideoFrame) -> Plane:
    return np.ascontiguousarray(frame.to_ndarray(), dtype=np.uint8)
