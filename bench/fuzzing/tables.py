"""Files of other kinds: studies, catalogues, verdicts of benchmarks, outcomes."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import mutate
from fuzzing.campaign import Wrong
from preceptor.agreement.orders import read_observed, read_predictions
from preceptor.benchmarks.alpaca_eval.calibration import form_calibration
from preceptor.benchmarks.files import read_baseline, read_files
from preceptor.benchmarks.registry import benchmarks
from preceptor.config.study import StudyFile, read_catalogue
from preceptor.config.toml import study_text

_STUDIES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
_TOML = (
    "nan", "inf", "-1", "0", "1e400", "9" * 400, "true", '""', "[]", "{}", '"\\u0000"', '"x"', "[[[[]]]]",
    "1979-05-27", "[1, 'a', {}]", "{a.b = 1}", "[" * 3000, "0xFFFFFFFFFFFFFFFFFFFF", "'''\n'''",
    '"' + "y" * 100_000 + '"', "2026-01-01T00:00:00Z",
)  # fmt: skip


def case(folder: Path, chance: Random) -> str:
    """Make one of these files and read it."""
    kind = chance.choice(
        (study, study, catalogue, annotations, judgements, compact, outcomes, rankings, calibration)
    )
    return kind(folder, chance)


def changed_toml(text: str, chance: Random) -> bytes:
    """Return TOML with another value, name or heading in a line, or damaged bytes."""
    lines = text.splitlines()
    for _ in range(chance.randint(1, 2)):
        fields = [n for n, line in enumerate(lines) if " = " in line and not line.startswith("#")]
        place = chance.choice(fields)
        name, _, value = lines[place].partition(" = ")
        lines[place] = chance.choice(
            (
                f"{name} = {chance.choice(_TOML)}",
                f"{name}{chance.choice('xs_.')} = {value}",
                f"[{name}]",
                "",
                f"{name}.x = 1",
            )
        )
        lines.insert(
            chance.randrange(len(lines)),
            chance.choice(("", "[[teachers]]", "[data]", "reward = 3", "x = nan")),
        )
    whole = "\n".join(lines).encode()
    return mutate.damaged(whole, chance) if chance.random() < 0.3 else whole


def study(folder: Path, chance: Random) -> str:
    """A study file; one that is taken must be the same study when it is written and read again."""
    path = folder / "study.toml"
    path.write_bytes(changed_toml(chance.choice(_STUDIES).read_text(), chance))
    found = StudyFile.read(path).study
    path.write_text(study_text(found), encoding="utf-8")
    if StudyFile.read(path).study != found:
        raise Wrong(f"a study is another when read again:\n{path.read_text()[:1000]}")
    return "study"


_CATALOGUE = """
[licences]
open = "free"

[[family]]
name = "Fam"
licence = "open"
[[family.teachers]]
name = "one"
model = "o/one"
parameters = 7.5
price_in = 0.5
notes = ["a note"]

[[teachers]]
name = "two"
model = "o/two"
context = 4096
hosted = true
"""


def catalogue(folder: Path, chance: Random) -> str:
    """A catalogue; what is taken must answer every question."""
    path = folder / "catalogue.toml"
    path.write_bytes(changed_toml(_CATALOGUE, chance))
    found = read_catalogue(path)
    for name in ("one", "two", "o/two", "gpt-4"):
        entry = found.find(name)
        if entry is not None:
            texts = (entry.name, entry.label, entry.family, entry.model, entry.released)
            numbers = (
                entry.parameters,
                entry.active,
                entry.context,
                entry.price_in,
                entry.price_out,
            )
            if not all(isinstance(one, str) for one in texts):
                raise Wrong(f"no texts: {texts}")
            if not all(
                one is None or (isinstance(one, int | float) and 0 <= one < 1e30) for one in numbers
            ):
                raise Wrong(f"no numbers: {numbers}")
    found.filtered(["free"])
    return "catalogue"


def annotations(folder: Path, chance: Random) -> str:
    """AlpacaEval's annotations: every row is a verdict or counted."""
    rows: list[Any] = [
        {"instruction": f"{n}?", "output_1": "base", "generator_1": "base", "output_2": f"{n}!",
         "generator_2": "ours", "annotator": "judge", "preference": 1 + n / 8}
        for n in range(6)
    ]  # fmt: skip
    return _verdicts(
        folder,
        chance,
        rows,
        "alpaca_eval",
        lambda found: len(found.wins) + sum(found.dropped.values()),
    )


def judgements(folder: Path, chance: Random) -> str:
    """Arena-Hard's judgements: every game is a verdict or counted."""
    rows: list[Any] = [
        {
            "question_id": f"q{n}",
            "model": "ours",
            "judge": "j",
            "games": [{"score": "A>B"}, {"score": "B>>A"}],
        }
        for n in range(6)
    ]
    return _verdicts(
        folder,
        chance,
        rows,
        "arena_hard",
        lambda found: ((found.verdicts or 0) + sum(found.dropped.values())) / 2,
    )


def _verdicts(
    folder: Path, chance: Random, rows: list[Any], name: str, rows_of: Callable[[Any], float]
) -> str:
    place = chance.randrange(len(rows))
    if chance.random() < 0.7:
        rows[place][chance.choice(list(rows[place]))] = mutate.value(chance)
        data = mutate.dumped(rows).encode("utf-8", "surrogatepass")
        one_each = True
    else:
        data, one_each = mutate.damaged(mutate.dumped(rows).encode(), chance), False
    path = folder / "judged.json"
    path.write_bytes(data)
    found = read_files([path]).verdicts[name]
    if one_each and sum(map(rows_of, found)) != len(rows):
        raise Wrong(f"{sum(map(rows_of, found))} of {len(rows)} rows: {data[:2000]!r}")
    if name != "alpaca_eval":  # whose length control would fetch difficulties
        benchmarks()[name].score(found)
    if chance.random() < 0.3:
        read_baseline(path)
    return name


def compact(folder: Path, chance: Random) -> str:
    """AlpacaEval's compact preferences."""
    columns: dict[str, Any] = {
        "idx": [0, 1, 2],
        "pref": [1.2, 1.7, 0],
        "len_base": [3, 4, 5],
        "len_model": [5, 6, 7],
    }
    held: dict[str, Any] = {
        "ours": columns,
        "theirs": {name: list(values) for name, values in columns.items()},
    }
    name = chance.choice(list(columns))
    if chance.random() < 0.5:
        columns[name][chance.randrange(3)] = mutate.value(chance)
    else:
        columns[name] = mutate.value(chance)
    path = folder / "compact.json"
    data = mutate.dumped(held).encode("utf-8", "surrogatepass")
    path.write_bytes(data if chance.random() < 0.7 else mutate.damaged(data, chance))
    read_files([path])
    return "compact"


def outcomes(folder: Path, chance: Random) -> str:
    """A table of outcomes: every number as it stands, or the file refused."""
    rows = [
        ["teacher", "student", "AP"],
        *([f"t{n}", f"s{n % 2}", str(n + 0.25)] for n in range(6)),
    ]
    place = chance.randrange(7)
    rows[place][chance.randrange(3)] = str(chance.choice(mutate.TEXTS))
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    data = buffer.getvalue().encode("utf-8", "surrogatepass")
    whole = chance.random() < 0.7
    path = folder / "outcomes.csv"
    path.write_bytes(data if whole else mutate.damaged(data, chance))
    found = {(s, t): v for s, scores in read_observed(str(path)).items() for t, v in scores.items()}
    wanted = {(f"s{n % 2}", f"t{n}"): n + 0.25 for n in range(6) if n + 1 != place}
    if whole and place and not wanted.items() <= found.items():
        raise Wrong(f"{wanted} became {found}")
    read_predictions(str(path))
    return "outcomes"


def rankings(folder: Path, chance: Random) -> str:
    """Rankings as JSON, as `preceptor rank --json` writes them."""
    teachers = [
        {"teacher": f"t{n}", "rank": n, "car": n / 3, "reward": n / 2, "car_low": 0.0}
        for n in range(4)
    ]
    held: list[Any] = [
        {
            "student": "s",
            "by": "car",
            "metrics": {"car": {"higher_is_better": True}},
            "teachers": teachers,
            "settings": {},
        }
    ]
    target = chance.choice((held[0], *teachers, held[0]["metrics"]))
    target[chance.choice(list(target))] = mutate.value(chance)
    data = mutate.dumped(held).encode("utf-8", "surrogatepass")
    path = folder / "ranking.json"
    path.write_bytes(data if chance.random() < 0.7 else mutate.damaged(data, chance))
    read_predictions(str(path))
    read_observed(str(path))
    return "rankings"


def calibration(folder: Path, chance: Random) -> str:
    """The difficulties of AlpacaEval's instructions."""
    rows = [
        ["index", "preference", "std_delta_len", "instruction_difficulty"],
        *([str(n), "0.5", "0.1", "1.5"] for n in range(4)),
    ]
    rows[chance.randrange(5)][chance.randrange(4)] = str(
        chance.choice((*mutate.TEXTS, *mutate.NUMBERS))
    )[:300]
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    path = folder / "gamed.csv"
    data = buffer.getvalue().encode("utf-8", "surrogatepass")
    path.write_bytes(data if chance.random() < 0.7 else mutate.damaged(data, chance))
    form_calibration([{"instruction": f"{n}?"} for n in range(4)], path)
    return "calibration"
