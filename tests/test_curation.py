"""Choosing instructions: who stays, who goes and why, and that the order of files changes nothing."""

import re
import sys

import numpy as np
import pytest

from preceptor.config.base import checked
from preceptor.config.curation import Curation, Where
from preceptor.data.curation import curate, signature
from preceptor.data.instructions import Prompt
from preceptor.errors import DataError, MissingPackage, StudyError
from preceptor.types import Instruction, Message

WORDS = tuple(f"word{number}" for number in range(2000))
LONG = (
    "Write a short story about a lighthouse keeper who finds a letter in a bottle on the beach "
    "and decides to answer it, although nobody has lived on the other side of the sea for years."
)


def ask(text, source="one", **fields):
    return Prompt(Instruction.from_text(text), None, fields, source)


def asked(curated):
    return [prompt.instruction.text for prompt in curated]


def chosen(prompts, **options):
    return curate(list(prompts), checked(Curation, options, where="here"))


def made(count, source="one", *, seed=0):
    """Return questions of 12 to 30 random words; every third differs from one before by a word."""
    rng = np.random.default_rng([seed, count])
    texts: list[str] = []
    for number in range(count):
        if number % 3 == 2:
            texts.append(f"{texts[int(rng.integers(len(texts)))]} {WORDS[number]}")
        else:
            texts.append(" ".join(rng.choice(WORDS, size=int(rng.integers(12, 30)))))
    return [ask(text, source) for text in texts]


def test_every_row_ends_in_one_place_and_the_numbers_add_up():
    rows = [*made(60), *made(10), ask("short"), ask("x" * 900), ask("Why?", language="French")]
    report = chosen(
        rows,
        count=30,
        min_characters=6,
        max_characters=800,
        where=(Where(columns=("language",), values=("English",)),),
    ).report
    (tally,) = report.sources.values()
    assert tally.read == len(rows) == tally.kept + tally.dropped.total()
    assert tally.kept == report.kept == 30
    # "short" and "Why?" are shorter than 6; the filter sees what is long enough.
    assert (tally.dropped["too short"], tally.dropped["too long"]) == (2, 1)
    assert tally.without_column == {"language": 70}


def test_neither_the_order_of_the_rows_nor_of_the_sources_changes_the_choice():
    rows = [*made(90, "a"), *made(90, "b", seed=1), *made(30, "c")]
    first = list(chosen(rows, count=40))
    rng = np.random.default_rng(0)
    for _ in range(3):
        shuffled = [rows[at] for at in rng.permutation(len(rows))]
        assert list(chosen(shuffled, count=40)) == first


@pytest.mark.parametrize("near_duplicates", [0, 0.7])
def test_a_larger_draw_begins_with_the_smaller_one(near_duplicates):
    rows = made(300)
    everything = asked(chosen(rows, near_duplicates=near_duplicates))
    for count in (1, 10, 100):
        drawn = chosen(rows, count=count, near_duplicates=near_duplicates)
        assert asked(drawn) == everything[:count]
        assert len(drawn) == count


def test_a_larger_draw_per_source_contains_the_smaller_one():
    rows = [*made(200, "a"), *made(40, "b", seed=1)]
    # So that near duplicates lie across the sources too.
    rows += [ask(f"{prompt.instruction.text} again", "b") for prompt in rows[:50]]
    smaller = set(asked(chosen(rows, per_source=10)))
    larger = set(asked(chosen(rows, per_source=30)))
    assert smaller < larger


def test_each_source_gives_as_many_where_it_has_them():
    rows = [*made(100, "a"), *made(40, "b", seed=1), *made(6, "c", seed=2)]
    curated = chosen(rows, per_source=15, near_duplicates=0)
    assert {name: tally.kept for name, tally in curated.report.sources.items()} == {
        "a": 15,
        "b": 15,
        "c": 6,
    }
    assert curated.report.notes() == ["c: only 6 of the 15 wanted were there."]
    assert len(chosen(rows, per_source=15, count=20, near_duplicates=0)) == 20


def test_another_seed_draws_others():
    rows = made(300)
    draws = [
        set(asked(chosen(rows, count=100, seed=seed, near_duplicates=0))) for seed in (0, 1, -1)
    ]
    # Of two draws of 100 of 300, 33 are expected in common (hypergeometric, deviation 3.9).
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert 15 < len(draws[one] & draws[other]) < 55


def test_the_draw_is_even_over_the_data():
    rows = [
        ask(f"Question {number}?", source="first" if number < 2000 else "last")
        for number in range(4000)
    ]
    report = chosen(rows, count=1000, near_duplicates=0).report
    # 500 of each are expected, with a deviation of 14 (hypergeometric).
    assert abs(report.sources["first"].kept - 500) < 60


def test_of_exact_duplicates_the_source_that_sorts_first_keeps_one():
    rows = [ask("Why?", "b", place=1), ask("Why?", "a", place=2), ask("Why?", "a", place=3)]
    curated = chosen(rows)
    (kept,) = curated
    assert (kept.source, kept.fields["place"]) == ("a", 2)
    dropped = {name: dict(tally.dropped) for name, tally in curated.report.sources.items()}
    assert dropped == {"a": {"exact duplicate": 1}, "b": {"exact duplicate": 1}}


def test_what_the_filters_drop_does_not_stand_in_the_way_of_a_duplicate():
    rows = [ask("Why is it so?", "a", quality="poor"), ask("Why is it so?", "b", quality="good")]
    (kept,) = chosen(rows, where=(Where(columns=("quality",), values=("good",)),))
    assert kept.source == "b"


def test_of_near_duplicates_the_first_drawn_stays():
    rows = [ask(f"{LONG} Thanks{'!' * number}") for number in range(1, 6)] + [ask("Name a prime.")]
    drawn = asked(chosen(rows, near_duplicates=0))
    kept = asked(chosen(rows))
    assert kept == [text for text in drawn if text in ("Name a prime.", kept[0], kept[-1])]
    assert len(kept) == 2
    assert kept[0] == drawn[0]
    assert chosen(rows).report.sources["one"].dropped == {"near duplicate": 4}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LONG, LONG.upper()),
        (LONG, LONG.replace("short ", "")),
        (
            "请写一个关于灯塔守护者的短篇故事并说明他为什么离开" * 2,
            "请写一个关于灯塔守护者的短篇故事并说明他为何离开" * 2,
        ),
    ],
    ids=["case", "a word less", "one sign of another script"],
)
def test_texts_that_are_nearly_the_same_are_near_duplicates(one, other):
    assert len(chosen([ask(one), ask(other)], near_duplicates=0.6)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2+2?", "What is 2-2?"),
        ("???", "!!!"),
        ("Hi", "Yo"),
        ("请写一个关于灯塔守护者的短篇故事", "请解释为什么天空是蓝色的"),
        (LONG, LONG.replace("lighthouse", "train").replace("bottle", "bag").replace("sea", "city")
         .replace("beach", "floor").replace("short", "long").replace("answer", "burn")),
    ],
)  # fmt: skip
def test_texts_that_differ_are_not(one, other):
    assert len(chosen([ask(one), ask(other)])) == 2


def test_earlier_turns_count_for_near_duplicates():
    def turns(context):
        messages = (Message("user", context), Message("assistant", "Yes."), Message("user", LONG))
        return Prompt(Instruction(messages), None, {}, "one")

    other = " ".join(WORDS[:60])
    assert len(chosen([turns("Hello"), turns("Hallo")])) == 1
    assert len(chosen([turns("Hello"), turns(other)])) == 2


def test_signatures_estimate_the_jaccard_similarity_of_word_trigrams():
    def trigrams(text):
        words = re.findall(r"\w+", text)
        return {tuple(words[at : at + 3]) for at in range(len(words) - 2)}

    errors = []
    for number in range(40):
        kept = " ".join(WORDS[number * 40 : number * 40 + 40])
        one, other = f"{kept} {' '.join(WORDS[:number])}", f"{kept} {' '.join(WORDS[500:510])}"
        common, either = trigrams(one) & trigrams(other), trigrams(one) | trigrams(other)
        estimate = signature(ask(one)).jaccard(signature(ask(other)))
        errors.append(estimate - len(common) / len(either))
    # 128 independent hashes have a standard error of at most 0.044 (Broder 1997).
    assert np.sqrt(np.mean(np.square(errors))) < 0.044
    assert max(map(abs, errors)) < 0.15


def test_a_similarity_below_the_threshold_keeps_both():
    half = LONG.split()
    other = " ".join([*half[: len(half) * 3 // 4], *WORDS[:8]])
    similarity = signature(ask(LONG)).jaccard(signature(ask(other)))
    assert 0.3 < similarity < 0.7
    assert len(chosen([ask(LONG), ask(other)], near_duplicates=0.9)) == 2
    assert len(chosen([ask(LONG), ask(other)], near_duplicates=0.2)) == 1


def test_no_more_is_compared_once_enough_are_drawn():
    report = chosen(made(2000), count=50).report
    assert report.checked < 120
    assert report.sources["one"].dropped["not drawn"] == 2000 - report.checked
    assert report.notes() == [
        f"{report.checked:,} were checked for near duplicates before enough were drawn."
    ]


def test_a_draw_goes_on_until_it_is_full_however_many_duplicates_there_are():
    rows = [ask(f"{LONG} {number}") for number in range(900)] + made(30)
    report = chosen(rows, count=21).report
    assert report.kept == 21
    short = chosen(rows, count=25).report
    assert short.kept == 21
    assert short.notes() == ["Only 21 of the 25 wanted were there."]


@pytest.mark.parametrize(
    ("value", "wanted", "kept"),
    [
        ("English", ("english",), True),
        (" English ", ("French", "English"), True),
        ("English", ("French",), False),
        (False, ("false",), True),
        (True, ("false",), False),
        (3, ("3",), True),
        (3.0, ("3",), True),
        (0.25, ("0.25",), True),
        (None, ("none", "null", ""), False),
    ],
)
def test_a_filter_compares_values_as_text(value, wanted, kept):
    rows = [ask("Why?", column=value), ask("Because of what?")]
    report = chosen(rows, where=(Where(columns=("column",), values=wanted),)).report
    assert report.kept == 1 + kept
    assert report.sources["one"].without_column == {"column": 1}
    assert report.sources["one"].dropped == ({} if kept else {"other column": 1})


def test_a_filter_reads_the_first_of_its_columns_that_a_row_has():
    where = Where(columns=("task_category", "category"), values=("Math",))
    rows = [
        ask("a", task_category="Math", category="x"),
        ask("b", category="Math"),
        ask("c", task_category="x", category="Math"),
    ]
    assert sorted(asked(chosen(rows, where=(where,), near_duplicates=0))) == ["a", "b"]


def test_rows_without_the_column_are_kept_and_told():
    rows = [ask("a", "magpie", language="EN"), ask("b", "alpaca"), ask("c", "alpaca")]
    report = chosen(rows, where=(Where(columns=("language",), values=("EN",)),)).report
    assert report.kept == 3
    assert report.notes() == ["alpaca: 2 rows have no column language and passed its filter."]


def test_a_column_that_no_row_has_is_an_error_that_suggests_one():
    with pytest.raises(DataError, match=r"No row .*langauge.*Did you mean 'language'"):
        chosen([ask("a", language="EN")], where=(Where(columns=("langauge",), values=("EN",)),))


def test_nothing_left_is_an_error_that_says_why():
    with pytest.raises(DataError, match="2 too short"):
        chosen([ask("a"), ask("b")], min_characters=5)
    with pytest.raises(DataError, match="none to read"):
        chosen([])


def test_prompts_that_can_be_read_only_once_are_refused():
    with pytest.raises(StudyError, match="only once"):
        curate(iter(made(3)))


@pytest.mark.parametrize("change", [lambda rows: rows.pop(), lambda rows: rows.reverse()])
def test_data_that_change_meanwhile_are_an_error(change):
    rows = made(20)
    curated = curate(rows, Curation(near_duplicates=0))
    change(rows)
    with pytest.raises(DataError, match="changed while they were read"):
        list(curated)


def test_the_choice_can_be_read_twice():
    curated = chosen(made(30), count=10)
    assert list(curated) == list(curated)


def test_without_the_package_near_duplicates_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(MissingPackage, match=r"preceptor\[curate\]"):
        chosen(made(3))
    assert len(chosen(made(3), near_duplicates=0)) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"count": 0},
        {"per_source": 0},
        {"max_characters": 0},
        {"near_duplicates": 1.5},
        {"seed": 2**63},
    ],
)
def test_options_that_cannot_be_meant_are_refused(options):
    with pytest.raises(StudyError, match=f"{next(iter(options))}: Input should be"):
        chosen(made(2), **options)
