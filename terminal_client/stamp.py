"""A frame counter drawn into the picture, for machines (blocks of luma) and for people (digits).

PSNR cannot tell neighbouring frames apart, so whoever measures a video path end to end needs each picture to carry
its own name. The mark is two rows of 20 blocks, 8x8 luma each, in the top left corner: 24 bits of counter and
16 of CRC-CCITT, most significant first. The blocks sit on H.264's macroblock grid and survive heavy compression.

Pictures are planar yuv420p arrays of shape (height * 3 // 2, width), dtype uint8, as PyAV hands them out.
"""

import binascii
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]

COUNTER_LIMIT: Final = 1 << 24
BLOCK: Final = 8
COLUMNS: Final = 20
ROWS: Final = 2
MARK_WIDTH: Final = BLOCK * COLUMNS
MARK_HEIGHT: Final = BLOCK * ROWS
DIGITS_WIDTH: Final = 72
MARGIN: Final = 8
"""The codec smears the mark's edge into its surroundings this far: measurements leave it out too."""
DARK: Final = 40
BRIGHT: Final = 215
GREY: Final = 128


def stamp(picture: Plane, counter: int) -> None:
    """Draw `counter` (modulo 2^24) into the picture, in place. Raises ValueError if the picture is too small."""
    width, luma_height = picture.shape[1], picture.shape[0] * 2 // 3
    if width < MARK_WIDTH or luma_height < MARK_HEIGHT:
        raise ValueError(f"the counter needs a picture of at least {MARK_WIDTH}x{MARK_HEIGHT}")
    counter %= COUNTER_LIMIT
    word = (counter << 16) | _crc(counter)
    bits = np.array([word >> shift & 1 for shift in range(ROWS * COLUMNS - 1, -1, -1)], dtype=np.uint8)
    levels = np.where(bits, BRIGHT, DARK).astype(np.uint8).reshape(ROWS, COLUMNS)
    picture[:MARK_HEIGHT, :MARK_WIDTH] = levels.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    if width >= MARK_WIDTH + DIGITS_WIDTH:
        label = np.full((MARK_HEIGHT, DIGITS_WIDTH), DARK, dtype=np.uint8)
        cv2.putText(label, f"{counter:08d}", (2, 12), cv2.FONT_HERSHEY_PLAIN, 0.8, (BRIGHT,), 1)
        picture[:MARK_HEIGHT, MARK_WIDTH : MARK_WIDTH + DIGITS_WIDTH] = label


def read_stamp(picture: Plane) -> int | None:
    """The counter in a picture (or in its luma plane alone), or None where no intact mark is found."""
    if picture.shape[0] < MARK_HEIGHT or picture.shape[1] < MARK_WIDTH:
        return None
    mark = picture[:MARK_HEIGHT, :MARK_WIDTH].reshape(ROWS, BLOCK, COLUMNS, BLOCK)
    means = mark[:, 2:-2, :, 2:-2].mean(axis=(1, 3))
    word = int("".join("1" if mean > GREY else "0" for mean in means.flat), 2)
    counter, crc = word >> 16, word & 0xFFFF
    return counter if crc == _crc(counter) else None


def outside_stamp(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Mask of the luma plane (height, width): True where the picture is the camera's own."""
    mask = np.ones((height, width), dtype=np.bool_)
    mask[: MARK_HEIGHT + MARGIN, : MARK_WIDTH + DIGITS_WIDTH + MARGIN] = False
    return mask


def _crc(counter: int) -> int:
    return binascii.crc_hqx(counter.to_bytes(3, "big"), 0xFFFF)
