"""Large arrays of numbers in files without a name, which the system may move out of memory."""

import mmap
import os
import tempfile
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from preceptor.store.cache import cache_folder
from preceptor.store.files import make_folder

MOST_IN_MEMORY = 2**24
"""Numbers of an array that is in memory whatever comes; a larger one lies in a file."""


def large_numbers(size: int, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Return an array (size,) to be filled: in memory, or in a file where it is large."""
    if size <= MOST_IN_MEMORY:
        return np.empty(size, dtype)
    return mapped_numbers((size,), dtype)


def moved(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array (size,) as it is, or in a file where it is large."""
    if len(array) <= MOST_IN_MEMORY:
        return array
    found = large_numbers(len(array), array.dtype)
    found[:] = array
    return found


def mapped_numbers(shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Return an array to be filled, in a file of the cache folder that goes with it.

    It is in memory where the disk has no room for it, or a system cannot say so beforehand.
    """
    size = np.dtype(dtype).itemsize * prod(shape)
    try:
        make_folder(cache_folder())
        with tempfile.TemporaryFile(dir=cache_folder()) as file:
            # Room for all of it: a page for which there is none later would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.frombuffer(mmap.mmap(file.fileno(), size), dtype).reshape(shape)
    except (OSError, ValueError, AttributeError):  # no such call on Windows and macOS
        return np.empty(shape, dtype)
