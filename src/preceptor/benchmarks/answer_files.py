"""Models' answers to a benchmark's questions: read from either project's files, and written for them.

The one idea: an answer is known by its question, by the text in AlpacaEval and by the id in Arena-Hard. Which
layout a file has shows in its rows, never in its name. Files are untrusted text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from preceptor.benchmarks.judgement_rows import Row, read_rows, text_of
from preceptor.config.finetune import Benchmark
from preceptor.errors import DataError
from preceptor.store.files import explained, json_text, lines_text, write_text

_ALPACA = ("instruction", "output")
_ARENA = (("question_id", "choices"), ("question_id", "output"), ("uid", "messages"))


@dataclass(frozen=True)
class Answers:
    """One model's answers to one benchmark, by question: the instruction's text, or Arena-Hard's id.

    `questions` holds the texts where the file gives them, by the same key. A row without a text is none.
    """

    benchmark: Benchmark
    model: str
    texts: Mapping[str, str]
    questions: Mapping[str, str] = field(default_factory=dict)


def listed(rows: list[Row] | Row) -> list[Row]:
    """Return a file's rows as a list: a file of one line holds a single object."""
    return rows if isinstance(rows, list) else [rows]


def is_answers(rows: Sequence[Row]) -> bool:
    """Tell whether rows of a file are answers; judgements have other fields."""
    fields = rows[0].keys()
    return "winner" not in fields and (
        any(fields >= set(needed) for needed in _ARENA) or fields >= set(_ALPACA)
    )


def read_answers(path: str | Path) -> list[Answers]:
    """Return the answers in a file, one for each model in it.

    AlpacaEval's model outputs (`instruction`, `output`, `generator`); Arena-Hard's model answers, of either
    age (`question_id` and `choices`, or `uid` and `messages`), or `question_id`, `output`, `generator`.

    Raises:
        DataError: the file cannot be read or recognised, or a model answers a question twice.
    """
    rows = listed(read_rows(Path(path)))
    if not is_answers(rows):
        fields = list(rows[0])[:12]
        raise DataError(
            f"'{path}' holds no answers known here: its first row has the fields {', '.join(fields)}. "
            "Expected instruction, output and generator, or Arena-Hard's model answers."
        )
    return answers_of(rows, str(path))


def answers_of(rows: Sequence[Row], path: str) -> list[Answers]:
    """Return the answers in rows of a file; see `read_answers`."""
    arena = any(rows[0].keys() >= set(needed) for needed in _ARENA)
    texts: dict[str, dict[str, str]] = {}
    seen: set[tuple[str, str]] = set()
    questions: dict[str, str] = {}
    for place, row in enumerate(rows, start=1):
        where = f"'{path}', row {place}"
        model = _model(row, where) if arena else text_of(row, "generator", where)
        key = _id(row, where) if arena else text_of(row, "instruction", where)
        if (model, key) in seen:
            raise DataError(
                f"{where}: '{model}' answers {key[:80]!r} twice. Expected one answer for each "
                "question: drop the repeats."
            )
        seen.add((model, key))
        own = texts.setdefault(model, {})
        text, question = _text(row), row.get("instruction")
        if isinstance(text, str):
            own[key] = text
        if isinstance(question, str):
            questions[key] = question
    benchmark: Benchmark = "arena_hard" if arena else "alpaca_eval"
    return [Answers(benchmark, model, own, questions) for model, own in texts.items()]


def _model(row: Row, where: str) -> str:
    name = next((key for key in ("model", "model_id", "generator") if row.get(key)), "model")
    return text_of(row, name, where)


def _id(row: Row, where: str) -> str:
    return text_of(row, "uid" if "uid" in row else "question_id", where)


def _text(row: Row) -> object:
    """Return the answer wherever the layout has it; None where there is none."""
    try:
        if "choices" in row:
            return row["choices"][0]["turns"][-1]["content"]
        if "messages" in row:
            content = row["messages"][-1]["content"]
            return content.get("answer") if isinstance(content, Mapping) else content
    except (TypeError, KeyError, IndexError):
        return None
    return row.get("output")


def answer_rows(answers: Answers) -> list[dict[str, object]]:
    """Return the rows as the benchmark's own tools read them.

    AlpacaEval's model outputs, or Arena-Hard v0.1's model answers with one choice of one turn.
    """
    if answers.benchmark == "alpaca_eval":
        return [
            {"instruction": question, "output": text, "generator": answers.model}
            for question, text in answers.texts.items()
        ]
    return [
        {
            "question_id": key,
            "answer_id": _answer_id(answers.model, key),
            "model_id": answers.model,
            "choices": [{"index": 0, "turns": [{"content": text, "token_len": _tokens(text)}]}],
            "tstamp": 0.0,
        }
        for key, text in answers.texts.items()
    ]


def _answer_id(model: str, key: str) -> str:
    """Return an id that is the same each time; the tools want one that differs between answers."""
    raw = f"{model}\0{key}".encode("utf-8", "surrogatepass")
    return blake2b(raw, digest_size=11).hexdigest()


def _tokens(text: str) -> int:
    import bpe_openai

    return len(bpe_openai.get_encoding("cl100k_base").encode_ordinary(text))


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows as one JSON array, or one object a line where the name ends in `.jsonl`; return the path.

    Folders are made.

    Raises:
        DataError: the file cannot be written.
    """
    with explained("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, lines_text(rows) if path.suffix == ".jsonl" else json_text(list(rows)))
    return path
