"""The process in which references are checked: run by `pool`, never imported.

A job comes as a pickle of (`Limit`, checks), each check a reference and a text. The first line out is empty
and says that the packages are imported; a line of JSON follows for every check, as it is done: the fields of
a `Verdict`, none of them where memory ran out. A check that
uses more processor time than its limit ends this process by a signal, also inside one long call of a
library and also where the parent is gone.
"""

import json
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO

from preceptor.errors import DataError
from preceptor.scorers.verifier.kinds import prepared
from preceptor.scorers.verifier.library_checks import import_package
from preceptor.scorers.verifier.pool import Limit


def _answer(reference: Mapping[str, object], text: str) -> dict[str, object]:
    """Return the answer to one check; whatever a library raises is an answer that says so."""
    try:
        return {"reward": prepared(reference)(text)}
    except DataError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {}  # it ran out of memory
    except Exception as error:
        return {"failed": f"it raised {type(error).__name__}: {error!s:.200}"}


@contextmanager
def _limited(limit: Limit) -> Iterator[None]:
    # Windows has neither; there only the parent's clock limits a check.
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, limit.seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory(limit: Limit) -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit.memory, most))


def _serve(jobs: IO[bytes], answers: IO[bytes]) -> None:
    while True:
        limit, checks = pickle.load(jobs)
        for kind in {str(reference.get("kind")) for reference, _ in checks}:
            import_package(kind)
        _limit_memory(limit)
        answers.write(b"\n")
        answers.flush()
        for reference, text in checks:
            with _limited(limit):
                answer = _answer(reference, text)
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()


if __name__ == "__main__":
    # An interrupt is for the parent, which ends this process with all that it leaves behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not be taken for an answer.
    _answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(BrokenPipeError, EOFError):
        _serve(sys.stdin.buffer, _answers)
