"""What takes long before a first number can be stored: hashing, converting and loading a model.

It happens deep below whoever shows progress, and counts no rows; so it is told to whoever listens.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Listener = Callable[[str | None], None]
"""Is told what goes on now, None for nothing of the kind."""

_listeners: list[Listener] = []
_now: list[str] = []


@contextmanager
def activity(what: str) -> Iterator[None]:
    """Tell listeners that this goes on while it lasts, and then what it went on within."""
    _now.append(what)
    _tell()
    try:
        yield
    finally:
        _now.remove(what)
        _tell()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have the listener told while it lasts."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def _tell() -> None:
    for listener in tuple(_listeners):
        listener(_now[-1] if _now else None)


def quieten_downloads() -> None:
    """Keep the Hub's library from drawing bars, unless HF_HUB_DISABLE_PROGRESS_BARS=0 asks for them."""
    from huggingface_hub import constants, utils

    library: Any = utils
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        library.disable_progress_bars()


@contextmanager
def quiet_retries() -> Iterator[None]:
    """Keep the Hub's library from printing each of its tries to reach it; what fails in the end is told."""
    logger = logging.getLogger("huggingface_hub.utils._http")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
