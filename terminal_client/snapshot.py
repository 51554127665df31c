"""One picture as a PNG file."""

from pathlib import Path

import cv2

from terminal_client.stamp import Plane


def write_png(path: Path, planes: Plane) -> bool:
    """Write yuv420p planes; False if they are no picture. Raises OSError."""
    encoded, image = cv2.imencode(".png", cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420))
    if encoded:
        path.write_bytes(image.tobytes())
    return bool(encoded)
