"""A benchmark: which of two answers names the capital."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from preceptor import Answers, Benchmark, QuestionSet, answers_in

TEXTS = {f"c{n}": f"What is the capital of country {n}?" for n in range(40)}


@dataclass(frozen=True)
class Capitals(Benchmark):
    """Which of two answers names the capital."""

    name: ClassVar[str] = "capitals"
    title: ClassVar[str] = "Capitals"
    measures: ClassVar[Mapping[str, str]] = {"CAP": "win rate"}

    def questions(self, limit=None, *, baseline=None, answers=()):
        own = baseline or Answers(self.name, "atlas", {key: f"City {key}" for key in TEXTS})
        return QuestionSet.of(TEXTS, own).drawn(limit)

    def read_answers(self, rows, path):
        if "country" not in rows[0]:
            return None
        return answers_in(
            rows,
            path,
            benchmark=self.name,
            known=lambda row, where: (row["model"], row["country"]),
            text=lambda row: row["city"],
        )
