"""The catalogue of teachers: the paper's table 1 to the letter, facts in good form, a list one can read."""

import io
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from preceptor.cli.list import _print_entries
from preceptor.config.catalogue import SHIPPED, CatalogueEntry, find_teacher
from preceptor.engines.templates import FAMILY_TEMPLATES, ChatTemplate
from preceptor.types import Message
from small_study import preceptor

# Table 1 of Xu et al., "Stronger Models are Not Always Stronger Teachers for Instruction Tuning" (2025):
# model family, release date, Model ID, size in billions. GPT-4's date reads "Since Mar, 2023", its size "-".
TABLE_1 = [
    ("Qwen2", "2024-06", "Qwen2-1.5B-Instruct", 1.5),
    ("Qwen2", "2024-06", "Qwen2-7B-Instruct", 7),
    ("Qwen2", "2024-06", "Qwen2-72B-Instruct", 72),
    ("Qwen2.5", "2024-09", "Qwen2.5-3B-Instruct", 3),
    ("Qwen2.5", "2024-09", "Qwen2.5-7B-Instruct", 7),
    ("Qwen2.5", "2024-09", "Qwen2.5-14B-Instruct", 14),
    ("Qwen2.5", "2024-09", "Qwen2.5-32B-Instruct", 32),
    ("Qwen2.5", "2024-09", "Qwen2.5-72B-Instruct", 72),
    ("Llama 3", "2024-04", "Llama-3-8B-Instruct", 8),
    ("Llama 3", "2024-04", "Llama-3-70B-Instruct", 70),
    ("Llama 3.1", "2024-07", "Llama-3.1-8B-Instruct", 8),
    ("Llama 3.1", "2024-07", "Llama-3.1-70B-Instruct", 70),
    ("Llama 3.1", "2024-07", "Llama-3.1-405B-Instruct", 405),
    ("Gemma 2", "2024-06", "Gemma-2-2b-it", 2),
    ("Gemma 2", "2024-06", "Gemma-2-9b-it", 9),
    ("Gemma 2", "2024-06", "Gemma-2-27b-it", 27),
    ("Phi-3", "2024-06", "Phi-3-mini-128k-instruct", 3.8),
    ("Phi-3", "2024-06", "Phi-3-small-128k-instruct", 7),
    ("Phi-3", "2024-06", "Phi-3-medium-128k-instruct", 14),
    ("GPT-4", "2023-03", "GPT-4 & GPT-4 Turbo", None),
]

each = pytest.mark.parametrize("entry", SHIPPED.entries, ids=lambda entry: entry.name)


def printed(entries: tuple[CatalogueEntry, ...], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    _print_entries(console, entries)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_paper_s_generators_are_table_1_row_by_row():
    rows = [(e.family, e.released, e.label, e.parameters) for e in SHIPPED.entries if e.in_paper]
    assert rows == TABLE_1
    assert len(rows) == 20
    assert len({family for family, *_ in rows}) == 7


@each
def test_an_entry_is_in_good_form(entry: CatalogueEntry):
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", entry.name)
    assert re.fullmatch(r"20[0-9]{2}-(0[1-9]|1[0-2])", entry.released)
    assert re.fullmatch(r"[\w.-]+" if entry.hosted else r"[\w.-]+/[\w.-]+", entry.model)
    assert entry.context >= 4096
    assert entry.licence and entry.label and entry.family
    assert (entry.parameters is None) == entry.hosted
    assert entry.parameters is None or entry.parameters > (entry.active or 0) >= 0
    assert all(re.fullmatch(r"[A-Z][^\n]*\.", note) for note in entry.notes)
    assert len(set(entry.notes)) == len(entry.notes)


@each
def test_an_entry_is_found_by_name_hub_id_and_label_in_any_case(entry: CatalogueEntry):
    # Identity, so that no name can lead to another entry.
    for name in (entry.name, entry.model, entry.label):
        assert find_teacher(name) is entry
        assert find_teacher(f" {name.upper()}\n") is entry


def test_families_stand_together_and_the_paper_s_come_first():
    families = [entry.family for entry in SHIPPED.entries]
    assert sorted(families, key=families.index) == families
    assert list(dict.fromkeys(families))[:7] == list(dict.fromkeys(row[0] for row in TABLE_1))


def test_an_unknown_teacher_is_not_found():
    assert find_teacher("gemma-2-9b") is None
    assert find_teacher("") is None


def test_the_notes_on_templates_are_what_the_templates_do():
    turns = (Message("system", "BE BRIEF"), Message("user", "WHY?"), Message("assistant", "SO."))
    gemma = find_teacher("gemma-2-9b-it")
    assert gemma is not None and any("no system role" in note for note in gemma.notes)
    text = ChatTemplate("gemma", FAMILY_TEMPLATES["gemma"], {}).render(turns)
    assert "<start_of_turn>user\nBE BRIEF\n\nWHY?<end_of_turn>" in text
    phi = find_teacher("phi-3-mini-128k-instruct")
    assert phi is not None and "It ends turns with <|end|>." in phi.notes
    text = ChatTemplate("phi3", FAMILY_TEMPLATES["phi3"], {}).render(turns)
    assert "SO.<|end|>" in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_fits_the_terminal_and_names_every_teacher_and_model(width: int):
    lines = printed(SHIPPED.entries, width)
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    words = [line.split() for line in lines]
    for entry in SHIPPED.entries:
        row = next(place for place, line in enumerate(words) if line[:1] == [entry.name])
        shown = words[row] if width == 120 else words[row] + words[row + 1]
        assert f"{entry.context:,}" in shown
        assert entry.released in shown
        assert entry.model in shown


def test_what_holds_for_all_of_a_family_is_said_once():
    text = " ".join(" ".join(printed(SHIPPED.entries[:8], 120)).split())
    assert "Licence: Apache-2.0 (qwen2-72b-instruct: Tongyi Qianwen)." in text
    assert text.count("Its own template adds a default system text.") == 2
    assert "qwen2.5-3b-instruct: Its licence bars commercial use." in text
    alone = " ".join(printed(SHIPPED.entries[2:3], 120))
    assert "Licence: Tongyi Qianwen." in alone


def test_sizes_of_mixtures_of_experts_show_both_numbers():
    text = preceptor("list", "teachers", "--family", "gpt-oss").stdout
    assert "21B/3.6B" in text
    assert "117B/5.1B" in text


def listed(*options: str) -> list[str]:
    records = json.loads(preceptor("list", "teachers", *options, "--json", "-").stdout)
    return [record["name"] for record in records]


def test_the_list_can_be_the_paper_s_alone():
    assert listed("--paper") == [e.name for e in SHIPPED.entries if e.in_paper]
    assert "qwen3" not in preceptor("list", "teachers", "--paper").stdout


def test_a_family_is_its_name_or_the_beginning_of_names():
    assert listed("--family", "llama 3") == ["llama-3-8b-instruct", "llama-3-70b-instruct"]
    assert listed("--family", "Llama-3.3") == ["llama-3.3-70b-instruct"]
    gemmas = listed("--family", "GEMMA")
    assert {"gemma-2-2b-it", "gemma-3n-e4b-it", "gemma-4-31b-it"} <= set(gemmas)
    assert all(name.startswith("gemma") for name in gemmas)


@pytest.mark.parametrize(
    ("options", "seen", "hint"),
    [
        (("--family", "gema 2"), "'gema 2'", "Did you mean 'Gemma 2'?"),
        (("--family", ""), "''", "Granite 4.0"),
        (("--paper", "--family", "Qwen3"), "'Qwen3'", "Did you mean 'Qwen2'?"),
    ],
)
def test_an_unknown_family_is_an_error_that_says_what_there_is(
    options: tuple[str, ...], seen: str, hint: str
):
    result = preceptor("list", "teachers", *options)
    assert result.exit_code == 1
    assert f"of the family {seen}" in result.stderr
    assert "Qwen2.5" in result.stderr
    assert hint in result.stderr


def test_json_holds_every_field_beside_the_printed_list(tmp_path: Path):
    path = tmp_path / "teachers.json"
    result = preceptor("list", "teachers", "--json", path)
    assert "gemma-2-9b-it" in result.stdout
    records = json.loads(path.read_text(encoding="utf-8"))
    entries = [{"schema_version": 1} | asdict(entry) for entry in SHIPPED.entries]
    assert records == json.loads(json.dumps(entries))
    assert json.loads(preceptor("list", "teachers", "--json", "-").stdout) == records


def test_a_list_that_cannot_be_written_is_an_error(tmp_path: Path):
    result = preceptor("list", "teachers", "--json", tmp_path / "nowhere" / "teachers.json")
    assert result.exit_code == 1
    assert "Cannot write" in result.stderr
