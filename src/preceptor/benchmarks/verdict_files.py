"""Write answers and verdicts in the layout of the benchmarks' own projects.

The one idea: a folder that either project's tools can be pointed at. `alpaca_eval/<model>/` holds
`model_outputs.json` and `annotations.json`, `arena_hard/` holds `model_answer/<model>.jsonl` and
`model_judgment/<judge>/<model>.jsonl`. What stands in them is read back by the readers of this package.
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from preceptor.benchmarks.answer_files import Answers, answer_rows, write_rows
from preceptor.benchmarks.verdicts import Judged

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def write_answers(folder: Path, answers: Sequence[Answers]) -> list[Path]:
    """Write the answers of each model and return the files.

    Raises:
        DataError: a file cannot be written.
    """
    written = []
    for one in answers:
        name = file_name(one.model)
        path = (
            folder / "alpaca_eval" / name / "model_outputs.json"
            if one.benchmark == "alpaca_eval"
            else folder / "arena_hard" / "model_answer" / f"{name}.jsonl"
        )
        written.append(write_rows(path, answer_rows(one)))
    return written


def write_verdicts(folder: Path, judged: Judged) -> list[Path]:
    """Write the verdicts on each model and return the files.

    None are written where the project's file cannot hold them: Arena-Hard's knows five verdicts and no
    probabilities, so games judged by choice stay in the store.

    Raises:
        DataError: a file cannot be written.
    """
    alpaca = judged.benchmark == "alpaca_eval"
    judge = file_name(judged.judge_name)
    written = []
    for model in dict.fromkeys(
        str(row["generator_2" if alpaca else "model"]) for row in judged.rows
    ):
        rows = [row for row in judged.rows if row.get("generator_2", row.get("model")) == model]
        path = (
            folder / "alpaca_eval" / file_name(model) / "annotations.json"
            if alpaca
            else folder / "arena_hard" / "model_judgment" / judge / f"{file_name(model)}.jsonl"
        )
        written.append(write_rows(path, rows))
    return written


def file_name(name: str) -> str:
    """Return a name fit for a file, which differs where the names differ; most stay as they are.

    Names come from files of others: none may leave the folder or be hidden.
    """
    plain = "".join(letter if letter in _PLAIN else "_" for letter in name)[:80]
    if plain and plain == name and not plain.startswith("."):
        return plain
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{plain.lstrip('.') or 'model'}-{digest}"
