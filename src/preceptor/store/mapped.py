"""Large arrays of numbers in files without a name, which the system may move out of memory."""

import mmap
import os
import tempfile
from math import prod

import numpy as np
from numpy.typing import NDArray

from preceptor.store.files import make_folder
from preceptor.store.identity import cache_folder


def mapped_numbers(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return an array to be filled, in a file of the cache folder that goes with it.

    It is in memory where the disk has no room for it, or a system cannot say so beforehand.
    """
    size = 8 * prod(shape)
    try:
        make_folder(cache_folder())
        with tempfile.TemporaryFile(dir=cache_folder()) as file:
            # Room for all of it: a page for which there is none later would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.frombuffer(mmap.mmap(file.fileno(), size), np.float64).reshape(shape)
    except (OSError, ValueError, AttributeError):  # no such call on Windows and macOS
        return np.empty(shape)
