"""Image files: what their headers say, and their pixels, 8-bit, upright, and of one size where that is asked for."""

from __future__ import annotations

import errno
import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from robustcli.config import Fit
from robustcli.data.arrays import MAX_PIXELS, Array
from robustcli.disk import open_regular
from robustcli.errors import DataError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may read. It knows more, and starts Ghostscript for one of them, whatever a file's suffix says."""
_GREY = ("1", "L", "LA", "La", "I", "F")  # and I;16, in several orders of bytes
_BROKEN = "cannot be read as an image"


class Header(NamedTuple):
    """What an image's header says: its (width, height) as it is shown, whether it is grey, whether frames follow."""

    size: tuple[int, int]
    grey: bool
    frames: bool


def read_header(file: str, content: bytes) -> Header:
    """The header of an image, of which the whole file's content is given.

    Raises:
        DataError: names the file, and says why it cannot be read.
    """
    with _open_image(file, content) as image:
        width, height = image.size
        if image.mode in ("P", "PA"):
            image.load()  # its palette
        on_its_side = _orientation(image) in range(5, 9)
        size = (height, width) if on_its_side else (width, height)
        return Header(size, _is_grey(image), bool(getattr(image, "is_animated", False)))


def decode(file: str, fit: Fit | None = None) -> Array:
    """An image as (c, h, w) uint8 with 1 or 3 channels.

    Raises:
        DataError: names the file, and says why it cannot be read.
    """
    with _open_image(file) as image:
        image.load()
        made = to_8_bits(_rotate(image))
        pixels = np.asarray(made if fit is None else fitted(made, fit))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def why(error: DataError, file: str) -> str:
    """What is wrong with a file, without its name."""
    return str(error).removeprefix(f"{file}: ").removeprefix(f"{_BROKEN}: ")


def fitted(image: Image, fit: Fit) -> Image:
    """An image of mode L or RGB, resized (smoothed first where it shrinks) and its centre cut out, as `fit` says."""
    from PIL.Image import Resampling

    (h, w), resize, (width, height) = fit.crop, fit.resize, image.size
    if isinstance(resize, tuple):
        size = (resize[1], resize[0])
    elif resize is not None:
        shorter = min(width, height)
        size = (resize * width // shorter, resize * height // shorter)
    elif w * height >= h * width:
        size = (w, max(h, round(height * w / width)))
    else:
        size = (max(w, round(width * h / height)), h)
    if max(size[0] * size[1], h * w) > MAX_PIXELS:
        raise ValueError(f"resized to {size[0]}x{size[1]} pixels it is too large; at most {MAX_PIXELS} are read")
    if size != image.size:
        image = image.resize(size, Resampling[fit.interpolation.upper()])
    left, top = round((size[0] - w) / 2), round((size[1] - h) / 2)
    return image if size == (w, h) else image.crop((left, top, left + w, top + h))  # which pads with black


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Nothing on stderr, where libtiff itself writes what it then raises."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _is_grey(image: Image) -> bool:
    """Whether it has one channel and perhaps transparency, or a palette of greys."""
    if image.mode not in ("P", "PA"):
        return image.mode.partition(";")[0] in _GREY
    colours = np.reshape(image.getpalette() or (), (-1, 3))
    return bool((colours == colours[:, :1]).all())


@contextmanager
def _open_image(file: str, content: bytes | None = None) -> Iterator[Image]:
    """An image of a size and a mode that are read; whatever is wrong with it within is a DataError.

    What Pillow warns of and logs is kept off the terminal.
    """
    from PIL import Image, UnidentifiedImageError

    log = logging.getLogger("PIL")
    if not log.handlers:  # else the errors that it logs are printed, beside those that it raises
        log.addHandler(logging.NullHandler())
    try:
        with (
            open_regular(Path(file)) if content is None else io.BytesIO(content) as opened,
            warnings.catch_warnings(action="ignore"),
            Image.open(opened, formats=FORMATS) as image,
            _no_stderr() if image.format == "TIFF" else nullcontext(),
        ):
            width, height = image.size
            if not 0 < width * height <= MAX_PIXELS:
                raise ValueError(f"it has {width}x{height} pixels; at most {MAX_PIXELS} an image are read")
            if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
                raise ValueError(f"it has pixels of mode {image.mode}; allowed: 8 or 16 bits a channel")
            yield image
            return
    except Image.DecompressionBombError:
        reason = f"it has too many pixels; at most {MAX_PIXELS} an image are read"
    except UnidentifiedImageError:
        reason = f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, or is damaged"
    except Exception as error:  # Pillow's readers raise nearly everything, such as struct.error
        if is_passing(error):
            raise
        reason = getattr(error, "strerror", None) or one_line(error)
    raise DataError(f"{file}: {_BROKEN}: {reason}") from None


def is_passing(error: Exception) -> bool:
    """Whether it is the machine that lacks something, and no fault of a file's."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _orientation(image: Image) -> int:
    """What its EXIF says of how it is turned, from 1 to 8; EXIF that is damaged says nothing."""
    from PIL import ExifTags

    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _rotate(image: Image) -> Image:
    """The image turned as its EXIF says."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def to_8_bits(image: Image) -> Image:
    """An image of any mode as L, where it is grey, or RGB: transparency is dropped, 16 bits become 8."""
    from PIL.Image import fromarray

    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint32)
        return fromarray(np.asarray((values + 128) // 257, dtype=np.uint8))  # to the nearest: 65535 is 257 * 255
    if image.mode in ("RGBa", "La"):  # their colours were multiplied by alpha, and are divided by it again
        image = image.convert(image.mode.upper())
    wanted = "L" if _is_grey(image) else "RGB"
    return image if image.mode == wanted else image.convert(wanted)
