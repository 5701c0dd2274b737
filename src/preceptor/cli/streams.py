"""Standard output and error, without secrets, as they are found: closed, full, cut short, lacking letters.

Tables and messages for people never fail for want of a letter: it is shown as its escape. JSON and CSV are
UTF-8 whatever the terminal's encoding, so that what is redirected to a file is the same everywhere.
"""

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from preceptor.config.secrets import without_secrets

_INTERRUPTED = 130
_CUT_SHORT = 141
"""128 and the number of the signal, as a shell says it for SIGINT and SIGPIPE."""


class Interrupted(click.ClickException):
    """The user has stopped the command."""

    exit_code = _INTERRUPTED


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, by which schedulers stop a job, end the command as Ctrl-C does: what it has is stored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class PrintableFormatter(logging.Formatter):
    """Shows control characters of what models, data and endpoints say as escapes; lines stay lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one message."""
        from preceptor.ranking.table import printable

        return "\n".join(map(printable, super().format(record).split("\n")))


class _Output(io.FileIO):
    """A pipe or file that remembers why it took no more, which those who write to it do not all pass on."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write bytes; see `io.FileIO`."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


class _Guarded(io.TextIOWrapper):
    """Text output that holds no secret, whoever writes: a command, a log, a traceback, another package."""

    def write(self, text: str, /) -> int:
        """Write a text without secrets; see `io.TextIOWrapper`."""
        super().write(without_secrets(text))
        return len(text)


def prepare() -> None:
    """Make both streams able to take any text but secrets; one that was closed takes it to nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (it lives as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            buffer = stream.buffer
            if name == "stdout" and stream is sys.__stdout__ and not stream.isatty():
                buffer = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
            guarded = _Guarded(
                buffer,
                stream.encoding,
                "backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, guarded)


def write_utf8(text: str) -> None:
    """Write data to standard output as UTF-8, half of a surrogate pair as its escape."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:  # a notebook's
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    buffer.write(text.encode("utf-8", "backslashreplace"))
    buffer.flush()


@contextmanager
def ending_quietly() -> Iterator[None]:
    """End without a traceback where standard output takes no more.

    The exit code is 141 where its reader has left, as after SIGPIPE, and 1 where it is full.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (OSError, SystemExit):  # some who write end the program themselves
        raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
        failure = raw.failure if isinstance(raw, _Output) else None
        if failure is None:
            raise
        _write_to_nowhere()
        if isinstance(failure, BrokenPipeError):
            raise SystemExit(_CUT_SHORT) from None
        why = f"Cannot write to standard output: {failure.strerror}."
        raise click.ClickException(why) from None


def _write_to_nowhere() -> None:
    """Let what is still buffered go, which would fail again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
