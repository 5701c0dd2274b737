"""Say what a written data set is: a card for people and the same facts for machines.

Names, warnings and settings come from models, data sets and study files, so all of them are untrusted. Each
passes `_inline` (Markdown), `_fenced` (code) or the Hub library's YAML writer before it stands in the card,
and none of those lets a text end the place it was given.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preceptor.export.layouts import OTHER_TOOLS, TRAINING, features
from preceptor.ranking.record import plain

_LAYOUT_WORDS = {
    "messages": "a list of messages each",
    "sharegpt": "a ShareGPT conversation each",
    "alpaca": "instruction and output, with earlier turns under `history`",
    "pairs": "a prompt with a chosen and a rejected response each",
}
_LOSS_WORDS = {"SFTTrainer": "; the loss is on the teacher's text alone", "DPOTrainer": ""}

CARD_NAME = "README.md"
FACTS_NAME = "preceptor.json"

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# An underscore within a word means nothing to Markdown and is common in names of models.
_MARKDOWN = re.compile(r"[\\`*\[\]{}|~#$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK_START = re.compile(r"^(\d*)([-+=.)])(?!\d)")
# The identifiers of licences and languages that the Hub accepts look so (hub-docs, datasetcard.md).
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{1,40}")
_LANGUAGE = re.compile(r"[a-z]{2,3}")


@dataclass(frozen=True)
class TeacherUse:
    """A teacher as the card lists it.

    `name` is what the rows carry. `rows` is how many the choice took; a written card counts anew,
    since empty texts are never written. `licence` is None where it is not known.
    """

    name: str
    model: str
    licence: str | None
    rows: int
    sampling: str


@dataclass(frozen=True)
class Card:
    """What a data card must say; no string in it is trusted.

    `how_chosen` is one plain sentence: which rule, by which metric, for which student. `settings`
    is everything that bears on the choice, `metrics` the rows of the ranking. `licence` (of the
    data set as a whole) and `languages` are identifiers of the Hub, for who knows them.
    """

    title: str
    how_chosen: str
    student: str | None
    teachers: Sequence[TeacherUse]
    settings: Mapping[str, object]
    metrics: Sequence[Mapping[str, object]]
    warnings: Sequence[str] = ()
    licence: str | None = None
    languages: Sequence[str] = ()


@dataclass(frozen=True)
class Written:
    """A data set as it lies on disk.

    `layout` is the examples' layout or `pairs`. `columns` maps each name to its kind. `taken` counts
    rows by teacher under "rows", or under "chosen" and "rejected" for pairs; `skipped` counts what
    was not written, by reason. `replaced_characters` were no valid Unicode. `tokens` sums the number
    of that name, None where any row has none.
    """

    data: Path
    layout: str
    columns: Mapping[str, str]
    rows: int
    taken: Mapping[str, Mapping[str, int]]
    skipped: Mapping[str, int]
    replaced_characters: int
    tokens: int | None

    @property
    def folder(self) -> Path:
        """The folder that is the data set."""
        return self.data.parent

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """The data, the card for people and the facts for machines."""
        return self.data, self.folder / CARD_NAME, self.folder / FACTS_NAME


def card_text(card: Card, written: Written) -> str:
    """Return the README of a data set: YAML that the Hub reads, then Markdown.

    Every string of the card may be hostile. Sections that would be empty are left out; a teacher
    that the rows name and the card does not is listed with what is known of it.
    """
    sections = [
        f"---\n{_front_matter(card, written)}---",
        f"# {_inline(card.title)}",
        _inline(card.how_chosen),
        _contents(card, written),
        _section("Warnings", "\n".join(f"- {_inline(warning)}" for warning in card.warnings)),
        _section("Teachers", f"{_teacher_table(card, written)}\n\n{_TERMS}"),
        _section("Ranking", _metric_table(card.metrics)),
        _section("Training on it", _training(card, written)),
        _section("Settings", _fenced("json", _json(card.settings)) if card.settings else ""),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def facts(card: Card, written: Written) -> str:
    """Return the card and the counts as JSON; numbers that are not finite become null."""
    teachers = [
        {
            "name": use.name,
            "model": use.model or None,
            "licence": use.licence,
            "sampling": use.sampling or None,
        }
        | {name: counts.get(use.name, 0) for name, counts in written.taken.items()}
        for use in _teachers(card, written)
    ]
    known = {
        "title": card.title,
        "how_chosen": card.how_chosen,
        "student": card.student,
        "layout": written.layout,
        "data": written.data.name,
        "columns": list(written.columns),
        "rows": written.rows,
        "tokens": written.tokens,
        "skipped": written.skipped,
        "replaced_characters": written.replaced_characters,
        "teachers": teachers,
        "licence": card.licence,
        "languages": card.languages,
        "warnings": card.warnings,
        "metrics": card.metrics,
        "settings": card.settings,
    }
    return _LONE_SURROGATE.sub("\ufffd", _json(known) + "\n")


_TERMS = (
    "The terms of each teacher's licence bind this data set and may bind models trained on it; so do "
    "those of the instructions. Read them before you train on it or pass it on."
)


def _teachers(card: Card, written: Written) -> list[TeacherUse]:
    named = {use.name for use in card.teachers}
    unnamed = dict.fromkeys(name for counts in written.taken.values() for name in counts)
    more = [TeacherUse(name, "", None, 0, "") for name in unnamed if name not in named]
    return [*card.teachers, *more]


def _front_matter(card: Card, written: Written) -> str:
    """Return what the Hub reads, in YAML, as its own library writes it."""
    from datasets.info import DatasetInfo, DatasetInfosDict
    from huggingface_hub import DatasetCardData

    licence = card.licence or ""
    split = {"split": "train", "path": written.data.name}
    data = DatasetCardData(
        pretty_name=one_line(card.title),
        license=licence if _LICENCE.fullmatch(licence) else "other",
        language=[name for name in card.languages if _LANGUAGE.fullmatch(name)] or None,
        task_categories=["text-generation"],
        size_categories=[_size_category(written.rows)],
        tags=["synthetic", "preceptor"],
        configs=[{"config_name": "default", "data_files": [split]}],
    )
    # Loaders guess types from the first rows, in which a column may hold nothing but nulls.
    shown = {one_line(name): kind for name, kind in written.columns.items()}
    infos = DatasetInfosDict({"default": DatasetInfo(features=features(shown))})
    infos.to_dataset_card_data(data)
    return f"{data}\n"


def _size_category(rows: int) -> str:
    """Return the Hub's name for a number of rows, as 1K<n<10K."""
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    step = sum(rows >= 1000 * 10**power for power in range(len(bounds)))
    if step == 0:
        return "n<1K"
    return f"n>{bounds[-1]}" if step == len(bounds) else f"{bounds[step - 1]}<n<{bounds[step]}"


def _contents(card: Card, written: Written) -> str:
    noun = "pair" if written.layout == "pairs" else "response"
    count = f"{written.rows:,} {noun}{'s' if written.rows != 1 else ''}"
    student = f" for the student {_inline(card.student)}" if card.student else ""
    tokens = "" if written.tokens is None else f", {written.tokens:,} tokens,"
    sentences = [
        f"`{written.data.name}` holds {count}{tokens}{student} ({_LAYOUT_WORDS[written.layout]})."
    ]
    numbers = [_inline(name) for name, kind in written.columns.items() if kind == "float64"]
    if numbers:
        sentences.append(f"Measured of each row, null where it is not known: {', '.join(numbers)}.")
    if written.skipped:
        reasons = ", ".join(f"{count:,} ({why})" for why, count in written.skipped.items())
        sentences.append(f"Chosen but left out: {reasons}.")
    if written.replaced_characters:
        count = f"{written.replaced_characters:,}"
        sentences.append(f"Characters that are no valid Unicode, replaced by U+FFFD: {count}.")
    if card.licence:
        sentences.append(f"Licence of the data set: {_inline(card.licence)}.")
    return "\n".join(sentences)


def _teacher_table(card: Card, written: Written) -> str:
    rows = []
    for use in _teachers(card, written):
        taken = [f"{counts.get(use.name, 0):,}" for counts in written.taken.values()]
        known = [text or "not stated" for text in (use.model, use.licence, use.sampling)]
        rows.append([use.name, known[0], *taken, *known[1:]])
    taken_heads = [name.capitalize() for name in written.taken]
    return _table(["Teacher", "Model", *taken_heads, "Licence", "Sampling"], rows)


def _metric_table(metrics: Sequence[Mapping[str, object]]) -> str:
    names = list(dict.fromkeys(name for row in metrics for name in row))
    return _table(names, [[_shown(row.get(name)) for name in names] for row in metrics])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    cells = [heads, *rows]
    lines = [f"| {' | '.join(_inline(cell) for cell in row)} |" for row in cells]
    return "\n".join([lines[0], f"|{' --- |' * len(heads)}", *lines[1:]])


def _shown(value: object) -> str:
    """Return a value of the ranking as people read it: four digits, words for no data."""
    value = plain(value)
    if value is None:
        return "no data"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " to ".join(_shown(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value)


def _training(card: Card, written: Written) -> str:
    trainer = "DPOTrainer" if written.layout == "pairs" else "SFTTrainer"
    student = json.dumps(card.student or "your/base-model")
    code = "\n".join(
        [*TRAINING[written.layout], f"{trainer}({student}, train_dataset=rows).train()"]
    )
    return (
        f"With [TRL](https://huggingface.co/docs/trl){_LOSS_WORDS[trainer]}:\n\n"
        f"{_fenced('python', code)}\n\n"
        "A student whose tokenizer has no chat template needs one first.\n"
        f"{OTHER_TOOLS[written.layout]}"
    )


def _section(head: str, body: str) -> str:
    return f"## {head}\n\n{body}" if body else ""


def one_line(text: str) -> str:
    """Return a text without line ends, controls, surrogates and marks that reorder it."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _inline(text: str) -> str:
    """Return a text that Markdown shows as it is, in a paragraph, list or table cell."""
    flat = _MARKDOWN.sub(r"\\\g<0>", one_line(text))
    flat = _BLOCK_START.sub(r"\1\\\2", flat)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _fenced(language: str, code: str) -> str:
    """Return a block of code or JSON, in neither of which a line can begin with a backtick."""
    shown = "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in code
    )
    return f"```{language}\n{shown}\n```"


def _json(value: object) -> str:
    return json.dumps(plain(value), ensure_ascii=False, indent=2)
