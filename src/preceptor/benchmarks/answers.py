"""Answers in the rows of a file, whatever the layout."""

from collections.abc import Callable, Sequence

from preceptor.benchmarks.questions import Answers
from preceptor.benchmarks.rows import Row
from preceptor.errors import DataError


def answers_in(
    rows: Sequence[Row],
    path: str,
    *,
    benchmark: str,
    known: Callable[[Row, str], tuple[str, str]],
    text: Callable[[Row], object],
) -> list[Answers]:
    """Return the answers in rows, one entry for each model.

    Args:
        rows: of one file.
        path: of the file, for messages.
        benchmark: whose answers they are.
        known: returns the model and the question's id of a row, given where the row stands.
        text: returns the answer; anything but a text is no answer.

    Raises:
        DataError: a model answers a question twice.
    """
    texts: dict[str, dict[str, str]] = {}
    seen: set[tuple[str, str]] = set()
    questions: dict[str, str] = {}
    for place, row in enumerate(rows, start=1):
        where = f"'{path}', row {place}"
        model, key = known(row, where)
        if (model, key) in seen:
            raise DataError(
                f"{where}: '{model}' answers {key[:80]!r} twice. Expected one answer for each "
                "question: drop the repeats."
            )
        seen.add((model, key))
        own = texts.setdefault(model, {})
        answer, question = text(row), row.get("instruction")
        if isinstance(answer, str):
            own[key] = answer
        if isinstance(question, str):
            questions[key] = question
    return [Answers(benchmark, model, own, questions) for model, own in texts.items()]


def only(answers: Sequence[Answers], path: str) -> Answers:
    """Return the answers of the one model that a baseline's file may hold; DataError for several."""
    if len(answers) != 1:
        names = ", ".join(one.model for one in answers)
        raise DataError(
            f"'{path}' holds answers of several models: {names}. Expected a baseline's."
        )
    return answers[0]
