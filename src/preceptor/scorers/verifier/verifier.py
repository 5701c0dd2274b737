"""Rewards from checking a response against its known answer: 1.0, 0.0, or none and why.

The reference of a response, or one rule for all responses, says how it is checked (`kinds`). Checks run in
parallel in worker processes, and what they found is stored like any other score.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import ClassVar

from preceptor.engines.reasoning import UNFINISHED, is_unfinished, without_reasoning
from preceptor.errors import DataError, StudyError
from preceptor.scorers.base import Scorer
from preceptor.scorers.verifier.kinds import prepared
from preceptor.scorers.verifier.library_checks import LIBRARY_KINDS, require_package
from preceptor.scorers.verifier.pool import CheckPool, Verdict
from preceptor.store.identity import Identity
from preceptor.types import Response, Score

CHECKS_VERSION = 3
"""To be raised whenever a check gives another reward or note than before: it is part of the identity."""


class NotChecked(DataError):
    """A check that did not come to an end, which says nothing about the response."""


class Verifier(Scorer):
    """The scorer of responses that carry a checkable reference: `reward` is 1.0 or 0.0.

    `constraints` references that count partly give the share kept, from 0.0 to 1.0. What is checked is the
    answer after a reasoning trace. A response that cannot be checked gets a note instead of a number: "no
    reference", "empty" (null or blank text), "unfinished reasoning", what is wrong with its reference, or
    why its check came to no end.
    """

    name = "verifier"
    measures: ClassVar[tuple[str, ...]] = ("reward",)
    columns: ClassVar[tuple[str, ...]] = ("reward",)

    def __init__(
        self, rule: Mapping[str, object] | None = None, *, processes: int | None = None
    ) -> None:
        """Check every response against `rule`, if one is given, whatever reference it carries.

        `processes` are checked in side by side, by default one for each core.

        Raises:
            StudyError: The rule is malformed or of an unknown kind.
            MissingPackage: The rule's kind needs a package of the extra `verify`.
        """
        self.rule = rule
        self._pool = CheckPool(processes)
        if rule is not None:
            try:
                # Some faults (of a schema, a pattern) are found only by whoever runs the check.
                verify("{}", rule)
            except DataError as error:
                raise StudyError(f"The rule for all responses cannot be used: {error}") from error

    @property
    def reads_reference(self) -> bool:
        """Whether a score depends on the response's own reference."""
        return self.rule is None

    def identity(self) -> Identity:
        """Return the identity of the rule, or of checking each response against its own reference."""
        rule = "reference" if self.rule is None else dict(self.rule)
        return Identity.of({"scorer": "verifier", "checks": CHECKS_VERSION, "rule": rule})

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield a score for each response, some at a time, in any order.

        A response whose check was held up by the machine gets none, so that another run tries it again.

        Raises:
            MissingPackage: A reference's kind needs a package of the extra `verify`.
            DataError: The processes that check cannot start.
        """
        noted = [(response, self._note(response)) for response in responses]
        yield [Score(self._key(one), {}, note) for one, note in noted if note is not None]
        checked = [response for response, note in noted if note is None]
        checks = [
            (self._reference(response), without_reasoning(response.text or ""))
            for response in checked
        ]
        for kind in {str(reference.get("kind")) for reference, _ in checks}:
            require_package(kind)
        for verdicts in self._pool.check(checks):
            found = [(checked[place], _score_of(verdict)) for place, verdict in verdicts]
            yield [Score(self._key(one), *score) for one, score in found if score is not None]

    def release(self) -> None:
        """End the processes that check."""
        self._pool.close()

    def _key(self, response: Response) -> bytes:
        return response.checked_key if self.reads_reference else response.key

    def _reference(self, response: Response) -> Mapping[str, object]:
        return (response.reference if self.rule is None else self.rule) or {}

    def _note(self, response: Response) -> str | None:
        """Return why there is nothing to check; None where there is."""
        text = response.text or ""
        if self.rule is None and response.reference is None:
            return "no reference"
        if is_unfinished(text):
            return UNFINISHED
        return None if without_reasoning(text).strip() else "empty"


def _score_of(verdict: Verdict) -> tuple[Mapping[str, float], str | None] | None:
    """Return values and note of a verdict; None where it says nothing."""
    if verdict.reward is not None:
        return {"reward": verdict.reward}, None
    if verdict.refused is not None:
        return {}, f"unusable reference: {verdict.refused}"
    return None if verdict.failed is None else ({}, f"not checked: {verdict.failed}.")


def verify(text: str, reference: Mapping[str, object]) -> float:
    """Return 1.0 where the answer in a text matches the reference, else 0.0.

    Kinds: `exact` (the final answer, the last line or the whole text has the answer's words and
    numbers, whatever the case, spacing and punctuation), `numeric` (optional relative `tolerance`;
    a percent sign on one side only matches both readings: 50% is 50 and 0.5), `choice` (a letter A
    to E; two different letters are wrong), `contains` (the answer, or any of a list of answers,
    occurs as whole words, and none of the optional list `not_contains` does), `regex`,
    `json_schema`, `math` (see `checks`) and `constraints` (see `constraints`; with `partial` the
    share of constraints kept).

    Raises:
        DataError: The reference is malformed or of an unknown kind.
        NotChecked: There is no answer after the reasoning, or the check took too long or too much memory.
        MissingPackage: The kind needs a package of the extra `verify`.
    """
    check = prepared(reference)
    if is_unfinished(text):
        raise NotChecked("The text is a reasoning trace that never ends: it holds no answer.")
    answer = without_reasoning(text)
    if reference["kind"] not in LIBRARY_KINDS:
        return check(answer)
    ((_, verdict),) = [
        one for some in _own_pool(os.getpid()).check([(reference, answer)]) for one in some
    ]
    if verdict.refused is not None:
        raise DataError(verdict.refused)
    if verdict.reward is None:
        raise NotChecked(f"The check gave no answer: {verdict.failed or 'it was held up'}.")
    return verdict.reward


@cache
def _own_pool(pid: int) -> CheckPool:
    """Return this process's own worker; a fork has another pid and must not share the pipes."""
    return CheckPool(1)
