"""The viewer's eye: a thread that decodes pictures the moment they are whole, notes when each was shown, records them.

A picture is shown as soon as it is decoded: a relay's replay of the current group of pictures runs through as fast
as it comes and ends at the living picture, with nothing to wait off afterwards.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

import av

from protocols.rtp.h264 import join_annex_b
from terminal_client.recorder import Recorder
from terminal_client.report import ReceivedFrame
from terminal_client.stamp import Plane
from terminal_client.streams import FirstPicture, Live, MediaEvent
from terminal_client.video_buffer import SHORTEST_INTERVAL, CodedPicture
from terminal_client.video_decoder import VideoDecoder, planes_of
from terminal_client.video_encoder import CLOCK_RATE

LIVE_SPACING: Final = 0.010
"""Pictures of a replay come at once, and squeezed together in time; living ones come at a frame rate."""
LONGEST_STEP: Final = 10 * CLOCK_RATE
"""A longer step between two pictures, or one back, means that the source has started over."""
LATE: Final = 0.200
"""Seconds between a picture's arrival and its showing after which it counts as late."""

MAX_QUEUED: Final = 240
"""Pictures that may wait for the decoder: a replay of two seconds at twice any usual rate."""


class PictureReceiver:
    """Decodes, remembers the last picture, records. Events go to `tell`, called from the thread."""

    def __init__(
        self,
        tell: Callable[[MediaEvent], None],
        broken: Callable[[], None],
        recorder: Recorder | None = None,
        parameter_sets: tuple[bytes, ...] = (),
    ) -> None:
        """`broken` is called from the thread when only a keyframe can help; `parameter_sets` come from the SDP."""
        self.shown: list[ReceivedFrame] = []
        self.undecodable = 0
        self.late = 0
        self.first_picture_at: float | None = None
        self.live_at: float | None = None
        self._tell = tell
        self._broken = broken
        self._recorder = recorder
        self._decoder = VideoDecoder()
        if parameter_sets:
            self._decoder.decode(join_annex_b(parameter_sets))
        self._queue: queue.SimpleQueue[CodedPicture | None] = queue.SimpleQueue()
        self._origin = 0
        self._previous: CodedPicture | None = None
        self._last: av.VideoFrame | None = None
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def put(self, picture: CodedPicture) -> None:
        """Queue a picture for decoding; never blocks. With too many waiting it is dropped, and a keyframe wanted."""
        if self._queue.qsize() < MAX_QUEUED:
            self._queue.put(picture)
        else:
            self._broken()

    def last_picture(self) -> Plane | None:
        """The picture shown last, as yuv420p planes."""
        return None if self._last is None else planes_of(self._last)

    def close(self) -> None:
        """Decode what is queued, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (picture := self._queue.get()) is not None:
            frame = self._decoder.decode(picture.data)
            if frame is None:
                self.undecodable += 1
                self._broken()
            else:
                self._show(picture, frame, time.monotonic())

    def _show(self, picture: CodedPicture, frame: av.VideoFrame, now: float) -> None:
        self._last = frame
        if self.first_picture_at is None:
            self.first_picture_at = now
            self._tell(FirstPicture(now))
        pts = self._time_of(picture, now)
        self.shown.append(ReceivedFrame(pts, now))
        self.late += now - picture.arrived_at > LATE
        if self._recorder is not None:
            size = (frame.width, frame.height)
            self._recorder.picture(picture.data, pts, keyframe=picture.keyframe, size=size, at=now)
        previous, self._previous = self._previous, picture
        if self.live_at is None and previous is not None and self._queue.empty():
            step = picture.timestamp - previous.timestamp
            if step >= SHORTEST_INTERVAL and picture.arrived_at - previous.arrived_at >= LIVE_SPACING:
                self.live_at = now
                self._tell(Live(now))

    def _time_of(self, picture: CodedPicture, now: float) -> int:
        """The picture's 90 kHz time since the first one; a source that starts over goes on where the old one was."""
        if not self.shown or self._previous is None:
            self._origin = picture.timestamp
            return 0
        last = self.shown[-1]
        if not 0 <= picture.timestamp - self._previous.timestamp <= LONGEST_STEP:
            self._origin = picture.timestamp - last.pts - round((now - last.shown_at) * CLOCK_RATE)
        return max(last.pts + 1, picture.timestamp - self._origin)
