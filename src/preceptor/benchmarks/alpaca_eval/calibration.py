"""What length control needs besides verdicts: the benchmark's instructions and the gamed baselines.

Difficulties are published by position in the benchmark's list of instructions, so that list is read with them
and its order is checked; from then on they are known by instruction. The files are not part of the package
(CC BY-NC 4.0): give them, or they are fetched from the benchmark's data set.
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preceptor.benchmarks.alpaca_eval.length_control import Calibration
from preceptor.benchmarks.alpaca_eval.score import INSTRUCTIONS
from preceptor.benchmarks.questions import fetched
from preceptor.benchmarks.rows import Row, read_rows, text_of
from preceptor.errors import DataError
from preceptor.store.files import read_csv

Array = NDArray[np.float64]

_ORDER = "1fac2cf0ca948b9b8979ec359f15c991"
_COLUMNS = ("index", "preference", "std_delta_len", "instruction_difficulty")
DATA_SET = "tatsu-lab/alpaca_eval"
"""The benchmark's home on the Hub (CC BY-NC 4.0)."""

BASELINE_FILE = "alpaca_eval_gpt4_baseline.json"
"""The 805 instructions in their order, with the baseline's answers."""

_GAMED_FILE = "df_gamed.csv"


def read_calibration(instructions: Path | None = None, gamed: Path | None = None) -> Calibration:
    """Return what length control needs, from local files or else from the published data set.

    Args:
        instructions: rows with `instruction` in the benchmark's order, JSON or JSON lines; annotations
            of all 805 as published will do.
        gamed: the CSV file of verdicts on the gamed baselines, as published.

    Raises:
        DataError: if a file cannot be fetched or read, or the two do not belong together.
    """
    listed = instructions or _fetched(BASELINE_FILE)
    rows = read_rows(listed)
    if not isinstance(rows, list):
        raise DataError(f"'{listed}' is one object: expected rows with 'instruction'.")
    return form_calibration(rows, gamed or _fetched(_GAMED_FILE))


def _fetched(name: str) -> Path:
    instead = "Length control needs it: give --instructions and --gamed with local copies."
    return fetched(DATA_SET, name, instead=instead)


def form_calibration(instructions: Sequence[Row], gamed: Path) -> Calibration:
    """Return what length control needs, from the benchmark's instructions and the gamed rows.

    Args:
        instructions: rows with `instruction`, in the benchmark's order.
        gamed: the CSV file of verdicts on the gamed baselines, published as `df_gamed.csv`, with the
            columns index, preference (0..1), std_delta_len and instruction_difficulty.

    Raises:
        DataError: if the instructions are the benchmark's 805 in another order, or the CSV file
            cannot be read or does not fit them.
    """
    texts = [
        text_of(row, "instruction", f"Instruction {n}") for n, row in enumerate(instructions, 1)
    ]
    _check_order(texts)
    table = _gamed_table(gamed)
    given = set(table[:, 0].tolist())
    if given != set(range(len(texts))):
        raise DataError(
            f"'{gamed}' knows {len(given)} instructions, the list has {len(texts)}: "
            "expected the same. Give the files that belong together."
        )
    by_position: dict[str | int, float] = {}
    for position, gamma in zip(table[:, 0].astype(int).tolist(), table[:, 3].tolist(), strict=True):
        if by_position.setdefault(position, gamma) != gamma:
            raise DataError(f"'{gamed}' gives instruction {position} two difficulties.")
    by_text: dict[str | int, float] = {text: by_position[place] for place, text in enumerate(texts)}
    terms = np.column_stack([np.tanh(table[:, 2]), table[:, 3]])
    return Calibration(by_position | by_text, terms, table[:, 1])


def _check_order(texts: Sequence[str]) -> None:
    if len(set(texts)) != len(texts):
        raise DataError("The list of instructions holds one twice: expected each once.")
    digest = blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16)
    # Difficulties are published by position: in another order they would belong to other questions.
    if len(texts) == INSTRUCTIONS and digest.hexdigest() != _ORDER:
        raise DataError(
            f"The {INSTRUCTIONS} instructions are not AlpacaEval's own in their published order, "
            "which the difficulties follow. Give the benchmark's file unchanged."
        )


def _gamed_table(path: Path) -> Array:
    """Return the columns index, preference, length difference and difficulty, shape (rows, 4)."""
    (_, headings), *lines = [*read_csv(path)] or [(0, [])]
    rows = [dict(zip(headings, cells, strict=False)) for _, cells in lines]
    missing = [name for name in _COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise DataError(f"'{path}' has no column {', '.join(missing)}: expected df_gamed.csv.")
    try:
        table = np.array([[float(row[name]) for name in _COLUMNS] for row in rows])
    except (KeyError, ValueError) as error:
        raise DataError(f"'{path}' holds what is no number: {error}.") from error
    bad = ~np.isfinite(table).all(axis=1) | (table[:, 1] < 0) | (table[:, 1] > 1)
    if bad.any() or not np.array_equal(table[:, 0], np.floor(table[:, 0])):
        raise DataError(
            f"'{path}', row {int(np.argmax(bad)) + 2}: expected finite numbers, a whole index and a "
            "preference from 0 to 1."
        )
    return table
