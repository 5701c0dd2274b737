"""The card of a data set: it says what a reader needs, and no string breaks out of its place."""

import json
import re
from dataclasses import replace

import pytest

from preceptor.export.writer import Card, Example, TeacherUse, write_examples
from preceptor.types import Instruction

PLAIN = Instruction.from_text("Name a colour.")
EXAMPLES = [
    Example(PLAIN, "Blue.", "sky", 0, {"reward": 1.5}),
    Example(PLAIN, "Red.", "sea/deep", 0, {"reward": 0.5}),
    Example(PLAIN, "Grey.", "sky", 1, {}),
]
CARD = Card(
    title="Best of two",
    how_chosen="The response with the highest CAR for the student was taken.",
    student="small/base",
    teachers=[
        TeacherUse("sky", "owner/sky", "apache-2.0", 2, "temperature 0.8"),
        TeacherUse("sea/deep", "owner/sea", None, 1, "greedy"),
    ],
    settings={"beta": 3.0, "seed": 0},
    metrics=[{"teacher": "sky", "car": 0.51234, "loss": float("nan")}],
)


def write(folder, examples, card=CARD):
    return write_examples(examples, folder, layout="messages", format="jsonl", card=card)


HOSTILE = [
    "a | b \\| c",
    "x\n---\ny: [1",
    "---",
    "`code` ```\n# Owned",
    "~~~\n```\n````",
    "<script>alert(1)</script>",
    "<!-- gone",
    "# Head",
    "- - -",
    "1. one",
    "=== \\",
    "![i](http://x) [l](javascript:x) *b* __u__ &amp; $x$",
    "\"': {}, & * ! % @",
    "\u2028---\u2028 \u202ereversed \x85 \x7f \ud800",
]


def seen(text):
    """What is left of a text on a line: no controls, no marks that reorder, no surrogates."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shown(token):
    return "".join("" if part.type != "text" else part.content for part in token.children).strip()


@pytest.mark.parametrize("text", HOSTILE)
def test_no_string_breaks_out_of_the_card(tmp_path, text):
    from huggingface_hub import DatasetCard
    from markdown_it import MarkdownIt

    card = Card(
        title=text,
        how_chosen=text,
        student=text,
        teachers=[TeacherUse(text, text, text, 1, text)],
        settings={text: [text, {"deep": text}]},
        metrics=[{text: text, "car": 1.0}],
        warnings=[text, text],
        licence=text,
        languages=[text],
    )
    written = write(
        tmp_path / "data", [Example(PLAIN, "x", text, 0, {"m " + text: 1.0})], card=card
    )
    readme = (written.folder / "README.md").read_text(encoding="utf-8")

    front = DatasetCard(readme).data.to_dict()
    assert front["pretty_name"] == seen(text)
    assert (front["license"], front.get("language")) == ("other", None)
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "train.jsonl"}]
    assert set(front) == {
        *("pretty_name", "license", "task_categories", "size_categories"),
        *("tags", "configs", "dataset_info"),
    }

    body = readme.split("\n---\n", 1)[1]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    inline = [token for token in tokens if token.type == "inline"]
    assert not [t for t in tokens if t.type in ("html_block", "hr", "code_block")]
    parts = {part.type for token in inline for part in token.children}
    assert parts <= {"text", "text_special", "softbreak", "code_inline", "link_open", "link_close"}
    links = [p.attrs for t in inline for p in t.children if p.type == "link_open"]
    assert links == [{"href": "https://huggingface.co/docs/trl"}]
    heads = [shown(tokens[at + 1]) for at, t in enumerate(tokens) if t.type == "heading_open"]
    title, *sections = heads
    assert title == seen(text)
    assert sections == ["Warnings", "Teachers", "Ranking", "Training on it", "Settings"]
    cells = [shown(tokens[at + 1]) for at, t in enumerate(tokens) if t.type == "td_open"]
    row = [text, text, "1", text, text]
    assert cells == [*map(seen, row), seen(text), "1"]
    items = [shown(tokens[at + 2]) for at, t in enumerate(tokens) if t.type == "list_item_open"]
    assert items == [seen(text)] * 2
    code, settings = [token.content for token in tokens if token.type == "fence"]
    assert len(code.splitlines()) == 7
    assert json.loads(settings) == {text: [text, {"deep": text}]}

    known = json.loads((written.folder / "preceptor.json").read_text(encoding="utf-8"))
    assert known["warnings"] == [text.replace("\ud800", "\ufffd")] * 2


def test_the_card_says_what_a_reader_needs(tmp_path):
    warned = replace(CARD, warnings=["Two teachers are close."], licence="mit", languages=["en"])
    written = write(tmp_path / "data", [*EXAMPLES, Example(PLAIN, " ", "sky")], warned)
    readme = (written.folder / "README.md").read_text(encoding="utf-8")
    for words in (
        "language:\n- en\nlicense: mit\nsize_categories:\n- n<1K\ntask_categories:\n- text-generation\n",
        "tags:\n- synthetic\n- preceptor\n",
        "# Best of two\n\nThe response with the highest CAR for the student was taken.\n",
        "`train.jsonl` holds 3 responses for the student small/base (a list of messages each).\n",
        "Chosen but left out: 1 (empty response).",
        "- Two teachers are close.",
        "| sky | owner/sky | 2 | apache-2.0 | temperature 0.8 |",
        "| sea/deep | owner/sea | 1 | not stated | greedy |",
        "The terms of each teacher's licence bind this data set",
        "| sky | 0.5123 | no data |",
    ):
        assert words in readme
    assert json.loads(re.search(r"```json\n(.*?)\n```", readme, re.S).group(1)) == CARD.settings
    known = json.loads((written.folder / "preceptor.json").read_bytes())
    assert known["metrics"] == [{"teacher": "sky", "car": 0.51234, "loss": None}]
    assert (known["rows"], known["skipped"]) == (3, {"empty response": 1})


def test_a_teacher_that_the_card_forgot_is_listed_with_what_is_known(tmp_path):
    readme = write(tmp_path / "data", [Example(PLAIN, "x", "other")]).files[1].read_text()
    assert "| sky | owner/sky | 0 |" in readme
    assert "| other | not stated | 1 | not stated | not stated |" in readme
