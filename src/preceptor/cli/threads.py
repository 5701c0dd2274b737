"""Threads of the mathematics: a command settles how many before NumPy is loaded.

The one idea: whoever starts the process decides, never the library, which may run beside other work.
"""

import os


def load_numpy() -> None:
    """Load NumPy with its matrix products on one thread.

    Threads that wait for each other on busy cores made a large ranking ten times slower, and gain a second
    or two on idle ones. The variable is read when NumPy is loaded, and must not reach PyTorch.
    """
    named = "OPENBLAS_NUM_THREADS"
    given = os.environ.get(named)
    os.environ[named] = given or "1"
    import numpy  # noqa: F401

    if given is None:
        del os.environ[named]
