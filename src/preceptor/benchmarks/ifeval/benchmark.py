"""Instruction constraints in the way of IFEval: does an answer keep what can be counted?

Prompts are written for the project, or the user's file in IFEval's layout: `prompt`, `instruction_id_list`
and `kwargs`. Strict and loose accuracy are the paper's (arXiv 2311.07911, section 3): over prompts, of which
all instructions must be kept, and over instructions.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

from preceptor.benchmarks.checked import CheckedBenchmark, Marks, Points, shipped_rows
from preceptor.benchmarks.ifeval.instructions import constraints_of, loose_readings
from preceptor.benchmarks.questions import Answers, QuestionSet
from preceptor.benchmarks.rows import Row
from preceptor.errors import DataError, counted
from preceptor.scorers.verifier.kinds import prepared

logger = logging.getLogger(__name__)

Check = Callable[[str], float]


class Asked(NamedTuple):
    """A prompt, and a check for each of its instructions."""

    prompt: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class IFEval(CheckedBenchmark):
    """Verifiable instructions; see the module."""

    name: ClassVar[str] = "ifeval"
    title: ClassVar[str] = "instruction constraints"
    measures: ClassVar[Mapping[str, str]] = {
        "IF": "prompts of which all constraints are kept, strict",
        "IF_loose": "the same, loose",
        "IF_each": "constraints kept, strict",
        "IF_each_loose": "the same, loose",
    }

    @cached_property
    def _read(self) -> tuple[Mapping[str, Asked], Counter[str]]:
        """Prompts by id, and how many were left out by reason."""
        found: dict[str, Asked] = {}
        left_out: Counter[str] = Counter()
        for place, row in enumerate(shipped_rows(self.files, __package__), start=1):
            try:
                name = str(row.get("key", place))
                # Keys of several files repeat.
                found[f"{name}, row {place}" if name in found else name] = asked_of(row)
            except DataError as error:
                left_out[str(error)] += 1
                logger.warning("Row %d is left out: %s", place, error)
        if not found:
            raise DataError(
                f"No prompt in {', '.join(self.files)} can be checked ({'; '.join(left_out)}). Expected rows "
                "of prompt, instruction_id_list and kwargs."
            )
        return found, left_out

    def question_set(self) -> QuestionSet:
        """Return the prompts whose instructions can all be checked."""
        texts = {key: one.prompt for key, one in self._read[0].items()}
        return QuestionSet.of(texts, Answers(self.name, "", {}))

    def marks(self, texts: Mapping[str, str]) -> Mapping[str, Marks]:
        """Return strict and loose accuracy of each answer, by prompt and by instruction."""
        return {key: _marks(self._read[0][key].checks, text) for key, text in texts.items()}

    def notes(self, judge: str | None = None) -> list[str]:
        """Return whose prompts these are, and what was left out."""
        found, left_out = self._read
        own = (
            f"The {len(found)} prompts are written for the project: this is not IFEval, and rates do not "
            "compare with published ones."
        )
        apart = [
            f"{counted(count, 'prompt', 'is')} left out. {why}" for why, count in left_out.items()
        ]
        return [*([] if self.files else [own]), *apart]


def asked_of(row: Row) -> Asked:
    """Return a row of IFEval's layout as a prompt with its checks.

    Raises:
        DataError: a field is missing, or an instruction cannot be checked.
    """
    prompt, ids, kwargs = (row.get(name) for name in ("prompt", "instruction_id_list", "kwargs"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError("A row has no text in 'prompt'.")
    if not isinstance(ids, list) or not ids or not isinstance(kwargs, list):
        raise DataError("A row has no lists in 'instruction_id_list' and 'kwargs'.")
    if len(ids) != len(kwargs):
        raise DataError("A row has not as many 'kwargs' as 'instruction_id_list'.")
    return Asked(prompt, tuple(map(_check, ids, kwargs)))


def _check(instruction: object, kwargs: object) -> Check:
    if not isinstance(instruction, str) or not isinstance(kwargs, Mapping):
        raise DataError("An instruction's id is no text, or its arguments are no object.")
    return prepared({"kind": "constraints", "constraints": constraints_of(instruction, kwargs)})


def _marks(checks: Sequence[Check], text: str) -> Marks:
    strict = [_kept(check, text) for check in checks]
    loose = [any(_kept(check, one) for one in loose_readings(text)) for check in checks]
    return {
        "IF": Points(all(strict)),
        "IF_loose": Points(all(loose)),
        "IF_each": Points(sum(strict), len(checks)),
        "IF_each_loose": Points(sum(loose), len(checks)),
    }


def _kept(check: Check, text: str) -> bool:
    """Return whether a text keeps an instruction; one that is blank keeps none."""
    return bool(text.strip()) and check(text) == 1.0
