"""Scorers that end the process they run in, for tests of who takes over."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from preceptor.scorers.base import Scorer
from preceptor.store.identity import Identity
from preceptor.types import Response, Score


@dataclass
class MortalScorer(Scorer):
    """Counts letters one response at a time; `deadly` ones kill its process, `spoiling` ones end its use.

    Before a response that says `stop` the process is asked to end, once. Every response that it was asked for
    is a line of `log`.
    """

    log: Path
    spoilt: bool = False
    name = "letters"
    measures = columns = ("letters",)
    memory = 1

    def identity(self) -> Identity:
        return Identity.of({"scorer": "mortal letters"})

    def score(self, responses: Sequence[Response]) -> Iterator[list[Score]]:
        for response in responses:
            text = response.text or ""
            with self.log.open("a") as file:
                file.write(text + "\n")
            self.meet(text)
            yield [Score(response.key, {"letters": float(len(text))})]

    def meet(self, text: str) -> None:
        if "deadly" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "stop" in text and self.log.read_text().count(text) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        self.spoilt |= "spoiling" in text and self.log.read_text().count(text) == 1
        if self.spoilt:
            raise RuntimeError("an illegal memory access was encountered")
