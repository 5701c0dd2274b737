"""The benchmarks' questions and baselines: from local files, or fetched from their public homes.

The one idea: a set of questions and the baseline's answers to them come together, because only what the
baseline answered can be asked. AlpacaEval's home is `tatsu-lab/alpaca_eval` (CC BY-NC 4.0), Arena-Hard v0.1's
`lmarena-ai/arena-hard-auto` (Apache-2.0), both data sets of the Hub; nothing of them is in the package.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from preceptor.benchmarks.answer_files import Answers, answers_of, listed, read_answers
from preceptor.benchmarks.arena_hard.score import BASELINE as ARENA_BASELINE
from preceptor.benchmarks.judgement_rows import read_rows, text_of
from preceptor.config.finetune import Benchmark
from preceptor.errors import DataError, StudyError

_ALPACA_HOME = "tatsu-lab/alpaca_eval"
_ALPACA_BASELINE = "alpaca_eval_gpt4_baseline.json"
_ARENA_HOME = "lmarena-ai/arena-hard-auto"
_ARENA_FOLDER = "data/arena-hard-v0.1"


@dataclass(frozen=True)
class QuestionSet:
    """Questions by id with the baseline's answers to them; an AlpacaEval question is its own id."""

    benchmark: Benchmark
    questions: Mapping[str, str]
    baseline: Answers

    def drawn(self, limit: int | None) -> "QuestionSet":
        """Return the first `limit` questions in an order given by their content; all where it is None.

        A larger limit adds to a smaller one, whatever the order of the files.

        Raises:
            StudyError: the limit is below 1.
        """
        if limit is None:
            return self
        if limit < 1:
            raise StudyError(f"The limit is {limit}: expected at least 1 question.")
        order = sorted(self.questions, key=lambda name: _hash(self.questions[name]))
        kept = {name: self.questions[name] for name in order[:limit]}
        return QuestionSet(self.benchmark, kept, self.baseline)


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def alpaca_questions(baseline: Answers | None = None) -> QuestionSet:
    """Return the questions that the baseline answered; by default AlpacaEval 2's 805 and their baseline.

    Raises:
        DataError: the published baseline cannot be fetched.
    """
    if baseline is None:
        path = fetched(_ALPACA_HOME, _ALPACA_BASELINE, instead="--baseline-answers FILE")
        baseline = _only(read_answers(path), str(path))
    return QuestionSet("alpaca_eval", {text: text for text in baseline.texts}, baseline)


def arena_questions(
    answers: Sequence[Answers], baseline: Answers | None = None, questions: Path | None = None
) -> QuestionSet:
    """Return Arena-Hard's questions and the baseline's answers to them.

    Args:
        answers: the models'; their files may hold the questions' texts.
        baseline: by default gpt-4-0314's published answers.
        questions: the benchmark's question.jsonl; by default the texts that stand in the files of answers,
            else the published ones.

    Raises:
        DataError: something cannot be fetched or read.
    """
    if baseline is None:
        name = f"{_ARENA_FOLDER}/model_answer/{ARENA_BASELINE}.jsonl"
        path = fetched(_ARENA_HOME, name, instead="--baseline-answers FILE")
        baseline = _only(read_answers(path), str(path))
    known: dict[str, str] = {}
    for one in (*answers, baseline):
        known |= one.questions
    if questions is not None or not set(baseline.texts) <= set(known):
        path = questions or fetched(
            _ARENA_HOME, f"{_ARENA_FOLDER}/question.jsonl", instead="--arena-questions FILE"
        )
        known = _questions_in(path)
    kept = {name: known[name] for name in baseline.texts if name in known}
    if not kept:
        raise DataError(
            f"The baseline '{baseline.model}' answers none of the {len(known)} Arena-Hard questions. "
            "Check that answers, questions and baseline belong together."
        )
    return QuestionSet("arena_hard", kept, baseline)


def _questions_in(path: Path) -> dict[str, str]:
    """Return the texts by id from question.jsonl; older ones have `question_id` and `turns`."""
    found = {}
    for place, row in enumerate(listed(read_rows(path)), start=1):
        where = f"'{path}', row {place}"
        name = text_of(row, "uid" if "uid" in row else "question_id", where)
        turns = row.get("turns")
        first = turns[0] if isinstance(turns, list) and turns else row
        text = first.get("content", first.get("prompt")) if isinstance(first, Mapping) else None
        if not isinstance(text, str):
            raise DataError(f"{where} has no text in 'prompt': expected Arena-Hard's questions.")
        found[name] = text
    return found


def _only(answers: Sequence[Answers], path: str) -> Answers:
    if len(answers) != 1:
        names = ", ".join(one.model for one in answers)
        raise DataError(
            f"'{path}' holds answers of several models: {names}. Expected a baseline's."
        )
    return answers[0]


def read_baseline(path: str | Path) -> Answers:
    """Return a baseline's answers from a file of answers, or of annotations, whose `output_1` they are.

    Raises:
        DataError: the file cannot be read, or holds several models' answers.
    """
    rows = listed(read_rows(Path(path)))
    if "output_1" in rows[0]:
        shown = [
            {
                "instruction": row.get("instruction"),
                "output": row.get("output_1"),
                "generator": row.get("generator_1"),
            }
            for row in rows
        ]
        return _only(answers_of(shown, str(path)), str(path))
    return _only(read_answers(path), str(path))


def fetched(home: str, name: str, *, instead: str) -> Path:
    """Return the local copy of a data set's file, fetched at first use.

    Raises:
        DataError: it cannot be fetched; `instead` is the option that makes it unnecessary.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(home, name, repo_type="dataset"))
    except (HfHubHTTPError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"Cannot fetch '{name}' of the data set '{home}': {reason} Give a local copy with {instead}."
        ) from error
