"""Rank teachers of mathematics by every metric, and hold the orders against what fine-tuning gave in chat.

The data are answers of eight of the paper's generators to the same level-5 MATH problems, with references
that are checked; the outcomes are the AP of the paper's table 7. What is printed is JSON, then the tables of
`docs/explanation/case-study-maths.md` in Markdown. A second run over the same store computes nothing:

    python bench/maths_case.py --data FOLDER --student MODEL --student MODEL --store FOLDER [--limit N]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from preceptor import api
from preceptor.agreement.table import Agreement, AgreementTable
from preceptor.errors import StudyError
from preceptor.ranking.result import Ranking
from preceptor.studies import average_performance

METRICS = (
    "car",
    "reward",
    "loss",
    "likelihood",
    "information",
    "rsr",
    "length",
    "brier",
    "rank_1",
    "lark_rho",
    "lark",
    "scas",
    "aslec_drop",
)
SHOWN = ("car", "reward", "loss", "information", "rsr", "length")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="folder or files of responses")
    parser.add_argument("--student", action="append", required=True, help="id, folder or GGUF")
    parser.add_argument("--store", required=True, help="folder of what is computed")
    parser.add_argument("--limit", type=int, help="problems, drawn by the seed")
    parser.add_argument("--max-length", type=int, help="tokens of prompt and response")
    given = parser.parse_args()
    began, before = time.perf_counter(), rows_in(given.store)
    rankings = api.rank_all(
        given.data,
        students=given.student,
        metrics=METRICS,
        limit=given.limit,
        max_length=given.max_length,
        store=given.store,
        progress=True,
    )
    held, why = held_against_outcomes(rankings)
    found = {
        "settings": {name: value for name, value in vars(given).items() if name != "store"},
        "seconds": round(time.perf_counter() - began, 1),
        "rows_computed": rows_in(given.store) - before,
        "rankings": [one.to_dict() for one in rankings],
        "not_compared": why,
        "agreement": [one.record() for one in held.means] if held else [],
        "each_student": [cell.record() for row in held.cells for cell in row] if held else [],
        "notes": [*held.comparison.left_out, *held.warnings()] if held else [],
    }
    print(json.dumps(found, indent=2, allow_nan=False))
    print("\n".join(["", *(line for one in rankings for line in leaderboard(one))]))
    print("\n".join(agreement(held) if held else [why]))


def rows_in(store: str) -> int:
    """Return how many rows the store holds, of all scorers together."""
    return sum(len(one.keys()) for one in api.stored(store))


def held_against_outcomes(rankings: Sequence[Ranking]) -> tuple[AgreementTable | None, str]:
    """Return the orders beside table 7's AP, or why they cannot be compared (too few teachers)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rankings.json"
        path.write_text(json.dumps([one.to_dict() for one in rankings]), encoding="utf-8")
        try:
            return api.measure_agreement(path, average_performance(), metrics=METRICS), ""
        except StudyError as error:
            return None, str(error)


def leaderboard(ranking: Ranking) -> Iterator[str]:
    """Yield one student's teachers in the order of CAR, with the 95% intervals of what is shown."""
    records = {str(record["teacher"]): record for record in ranking.to_records()}
    outcomes = average_performance()
    yield f"**{ranking.student}**, {ranking.best.n} problems. {ranking.verdict()}"
    yield ""
    yield from _heading(["teacher", "AP, table 7", *(f"`{name}`" for name in SHOWN)])
    by_car = sorted(records, key=lambda teacher: -(records[teacher]["car"] or 0.0))
    for teacher in by_car:
        own = [row[teacher] for row in outcomes.values() if teacher in row]
        mean = f"{sum(own) / len(own):.2f}" if own else ""
        record = records[teacher]
        cells = (
            _estimate(*(record.get(name + end) for end in ("", "_low", "_high"))) for name in SHOWN
        )
        yield _row([teacher, mean, *cells])
    yield ""


def agreement(table: AgreementTable) -> Iterator[str]:
    """Yield how each metric's order agrees with AP, the mean over the paper's students."""
    teachers, students = len(table.comparison.teachers), len(table.comparison.students)
    yield f"Spearman's rho with AP, mean over {students} students, {teachers} teachers."
    yield ""
    headings = ["metric", "better", "rho", "95%, families", "p", "adjusted", "regret", "top 3"]
    yield from _heading(headings)
    for mean, column in zip(table.means, table.comparison.columns, strict=True):
        better = "higher" if column.higher_is_better else "lower"
        yield _row([f"`{mean.column}`", better, *_cells(mean)])


def _cells(mean: Agreement) -> list[str]:
    tested = mean.permutation
    adjusted = "" if tested.adjusted != tested.adjusted else f"{tested.adjusted:.3f}"
    interval = _range(*mean.ends) if mean.ends.low == mean.ends.low else "none"
    regret = f"{mean.regret:.2f} ({mean.regret_share:.0%})"
    return [
        f"{mean.rho:.3f}",
        interval,
        f"{tested.p_value:.3f}",
        adjusted,
        regret,
        f"{mean.top_three:.0%}",
    ]


def _estimate(value: object, low: object, high: object) -> str:
    """Return a mean with its interval; nothing where there is no data."""
    if not isinstance(value, float):
        return ""
    interval = f" {_range(low, high)}" if isinstance(low, float) and isinstance(high, float) else ""
    return f"{value:.3g}{interval}"


def _range(low: float, high: float) -> str:
    return f"[{low:.3g}, {high:.3g}]"


def _heading(names: Sequence[str]) -> Iterator[str]:
    yield _row(names)
    yield _row(["---"] * len(names))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
