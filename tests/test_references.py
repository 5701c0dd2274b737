"""Reference answers in the data are found, checked once, and checked anew where they change."""

from pathlib import Path

import pytest

from preceptor.config.base import checked
from preceptor.config.data import ReadOptions
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.data.references import plain_answer
from preceptor.data.responses import ResponseSource
from preceptor.data.settle import settle, settle_instructions
from preceptor.pipeline.pipeline import Pipeline
from preceptor.store.store import ScorePartition, Store
from small_study import Rows, by_teacher, preceptor, ranked, write_rows


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


# The first training row of GSM8K (Cobbe et al. 2021) and a solution in the style of MATH.
GSM8K = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = 72 clips.\n#### 72"
SOLVED = r"We see that $x = 2$, so \boxed{3} is wrong and the answer is $\boxed{\frac{1}{2}}$."
PROSE = "A proverb about patience is that good things come to those who wait for them, always."
ROW = {"instruction": "How many?", "output": "It is 72.", "generator": "g"}


def references(*rows: dict[str, object], **options: object) -> tuple[str, list[object]]:
    """Return what is said of the references of rows, and the references; no row may be a problem."""
    problems: list[str] = []
    reading = settle(rows, ReadOptions(**options), where="a.jsonl", label="a")
    found = [
        response.reference
        for row in rows
        for response in reading.responses(row, lambda *_: 0, report=problems.append)
    ]
    assert problems == []
    return reading.references.describe(), found


@pytest.mark.parametrize(
    ("value", "kind", "answer"),
    [
        (GSM8K, "numeric", "72"),
        ("42", "numeric", "42"),
        (42, "numeric", "42"),
        (0.5, "numeric", "0.5"),
        ("$1,250", "numeric", "1,250"),
        ("-3/4", "numeric", "-3/4"),
        (SOLVED, "math", r"\frac{1}{2}"),
        (r"$\sqrt{2}$", "math", r"\sqrt{2}"),
        ("x^2 + 1", "math", "x^2 + 1"),
        ("(1, 2)", "math", "(1, 2)"),
        ("B", "choice", "B"),
        ("(C)", "choice", "C"),
        ("New York", "exact", "New York"),
    ],
)
@pytest.mark.parametrize("column", ["reference", "answer", "ground_truth", "solution", "target"])
def test_a_plain_answer_is_recognised_and_how_it_is_checked_is_said(column, value, kind, answer):
    said, found = references({**ROW, column: value})
    assert said == f"reference '{column}' checked as {kind}"
    assert found == [{"kind": kind, "answer": answer}]


@pytest.mark.parametrize("value", [PROSE, "https://example.org/page", True, ["4"], "", None, "..."])
def test_what_is_no_answer_is_not_checked(value):
    _, found = references({**ROW, "answer": value})
    assert found == [None]


def test_prose_in_a_column_of_answers_is_said_and_the_next_column_is_looked_at():
    assert references({**ROW, "answer": PROSE}) == ("'answer' is prose and not checked", [None])
    said, found = references({**ROW, "answer": PROSE, "target": "7"})
    assert said == "reference 'target' checked as numeric"
    assert found == [{"kind": "numeric", "answer": "7"}]


def test_the_kind_is_one_for_the_column_and_one_odd_row_does_not_decide_it():
    rows = [{**ROW, "answer": str(n)} for n in range(20)]
    odd = {**ROW, "answer": r"\frac{1}{2}"}
    assert references(*rows, odd)[0].endswith("as math")
    assert references(*rows, {**ROW, "answer": PROSE})[0].endswith("as math")
    assert (
        references(*rows, *[{**ROW, "answer": PROSE}] * 9)[0] == "'answer' is prose and not checked"
    )
    letters = [{**ROW, "answer": letter} for letter in "ABCD"]
    assert references(*letters)[0].endswith("as choice")
    assert references(*letters, {**ROW, "answer": "None"})[0].endswith("as exact")


def test_the_kind_can_be_overridden():
    said, found = references({**ROW, "answer": "42"}, reference_kind="math")
    assert (said, found) == (
        "reference 'answer' checked as math",
        [{"kind": "math", "answer": "42"}],
    )
    assert references({**ROW, "answer": "42"}, reference_kind="none")[1] == [None]
    assert references({**ROW, "answer": PROSE}, reference_kind="contains")[1] == [
        {"kind": "contains", "answer": PROSE}
    ]
    with pytest.raises(ValueError, match="reference_kind"):
        ReadOptions(reference_kind="number")


def test_a_column_that_holds_the_teachers_own_answer_is_no_reference():
    row = {"question": "How many?", "answer": "72", "model": "g"}
    named = {"instruction_column": "question", "response_column": "answer"}
    assert references(row, **named) == ("", [None])
    two = {"prompt": "How many?", "first": "It is 72.", "second": "70", "target": "72"}
    assert references(two)[1] == [{"kind": "numeric", "answer": "72"}] * 2


def test_questions_alone_come_with_their_references():
    reading = settle_instructions(
        [{"question": "How many?", "answer": GSM8K}], ReadOptions(), where="a", label="a"
    )
    assert reading.references.of({"answer": GSM8K}, print) == {"kind": "numeric", "answer": "72"}


def test_numbers_in_one_file_and_formulas_in_another_are_all_checked_as_formulas(tmp_path: Path):
    rows = {"one": "72", "two": r"\frac{1}{2}"}
    files = [
        write_rows(tmp_path / f"{name}.jsonl", [{**ROW, "answer": answer}])
        for name, answer in rows.items()
    ]
    source = ResponseSource.open(files)
    assert [one.reference and one.reference["kind"] for one in source] == ["math", "math"]


def test_the_answer_is_found_behind_what_is_worked_out_before_it():
    assert plain_answer("1 + 1\n#### 2\n") == "2"
    assert plain_answer(r"\boxed{\text{a}_{1}} and \boxed{b_{2}}.") == "b_{2}"
    assert plain_answer(r"\boxed{open") == "open"
    assert plain_answer(float("nan")) is None


def test_teachers_are_ranked_by_plain_references_and_not_by_length(tmp_path: Path):
    files = []
    for name, right in (("long", 0.2), ("short", 0.9)):
        rows = sums(right)
        for row in rows:
            row["reference"] = str(row["reference"]["answer"])
            row["output"] = ("Let me see. " * 9 if name == "long" else "") + row["output"]
        files.append(write_rows(tmp_path / f"{name}.jsonl", rows))
    (found,) = ranked(*files, "--store", tmp_path / "store")
    assert found["by"] == "reward"
    assert [one["teacher"] for one in found["teachers"]] == ["short", "long"]
    assert "reference 'reference' checked as numeric" in found["settings"]["layouts"][0]
    for file in files:
        file.write_text(file.read_text().replace('"reference": "', f'"reference": "{PROSE} '))
    (found,) = ranked(*files, "--store", tmp_path / "store")
    assert found["by"] == "length"


def test_the_best_of_several_samples_is_chosen_by_the_references(tmp_path: Path):
    wrong, right = sums(0.0), sums(0.8)
    rows = [row for pair in zip(wrong, right, strict=True) for row in pair]
    file = write_rows(tmp_path / "alpha.jsonl", rows)
    best = {"kind": "best", "of": "alpha", "label": "best"}
    tables = {"data": {"responses": str(file)}, "best_of_n": [best], "no_student": True}
    study = checked(Study, tables, where="here")
    (ranking,) = Pipeline(study, Runtime(store=str(tmp_path / "store"), device="cpu")).rankings()
    rewards = {one.teacher: one.estimates["reward"].value for one in ranking.teachers}
    assert rewards["best"] == 0.8


def test_a_page_and_a_plan_read_what_was_checked_from_the_store(tmp_path: Path):
    rows = {"good": sums(0.9), "bad": sums(0.3)}
    files = [write_rows(tmp_path / f"{name}.jsonl", of) for name, of in rows.items()]
    store, page, study = (tmp_path / name for name in ("store", "page.html", "study.toml"))
    done = preceptor("rank", *files, "--store", store, "--html", page)
    assert done.exit_code == 0, done.output
    assert "It is 2." in page.read_text()
    study.write_text(
        f'no_student = true\ndata.responses = ["{tmp_path}/*.jsonl"]\nruntime.store = "{store}"\n',
        encoding="utf-8",
    )
    assert "verifier: 48 stored, 0 to compute" in preceptor("plan", study).stdout
