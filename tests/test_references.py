"""Reference answers in the data are found, checked once, and checked anew where they change."""

from pathlib import Path

from preceptor.store.store import ScorePartition, Store
from small_study import Rows, by_teacher, ranked, write_rows


def sums(right: float, *, start: int = 0, number: int = 30) -> Rows:
    """Return answers to sums with their references, of which a share is right."""
    return [
        {
            "instruction": f"What is {n} and {n}?",
            "output": f"It is {2 * n if n < start + right * number else 2 * n + 1}.",
            "reference": {"kind": "numeric", "answer": 2 * n},
        }
        for n in range(start, start + number)
    ]


def checks(store: Path) -> ScorePartition:
    """Return what is stored of checks against references."""
    (found,) = [
        one
        for one in Store(str(store)).partitions()
        if isinstance(one, ScorePartition) and one.identity.spec.get("rule") == "reference"
    ]
    return found


def test_answers_are_checked_once_and_again_where_the_reference_changes(tmp_path: Path):
    store = tmp_path / "store"
    rows = {"good": sums(0.9), "bad": sums(0.3)}
    files = [write_rows(tmp_path / f"{name}.jsonl", of) for name, of in rows.items()]
    (first,) = ranked(*files, "--store", store)
    assert {n: one["reward"] for n, one in by_teacher(first).items()} == {"good": 0.9, "bad": 0.3}
    # 3 are wrong of one, 21 of the other: 30 texts of the first, and the wrong ones that differ.
    assert len(checks(store).keys()) == 30 + 18
    before = sorted(store.rglob("part-*"))
    ranked(*files, "--store", store)
    assert sorted(store.rglob("part-*")) == before

    for row in rows["good"]:
        row["reference"] = {"kind": "numeric", "answer": 0}
    write_rows(files[0], rows["good"])
    (changed,) = ranked(*files, "--store", store)
    assert by_teacher(changed)["good"]["reward"] == 1 / 30
    assert by_teacher(changed)["bad"]["reward"] == 0.3
    assert len(checks(store).keys()) == 30 + 18 + 29


def test_references_that_only_later_rows_have_are_found(tmp_path: Path):
    plain = [{"instruction": f"Name {n}.", "output": f"{n}"} for n in range(25)]
    files = [
        write_rows(tmp_path / f"{name}.jsonl", [*plain, *sums(right, number=80)])
        for name, right in (("good", 1.0), ("bad", 0.5))
    ]
    (found,) = ranked(*files, "--store", tmp_path / "store")
    assert {n: one["reward"] for n, one in by_teacher(found).items()} == {"good": 1.0, "bad": 0.5}
    assert by_teacher(found)["good"]["dropped"] == {"no reference": 25}
