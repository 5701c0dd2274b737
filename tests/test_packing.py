"""Packs hold every pair once, respect the budget and compute each prompt once."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preceptor.engines.base import TokenizedPair
from preceptor.engines.packing import Pack, plan

prompts = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), min_size=1, max_size=4
)
responses = st.lists(st.integers(3, 9), min_size=1, max_size=6).map(tuple)
budgets = st.integers(1, 24)
ONE_TOKEN_RESUMED = [TokenizedPair(p, (3 + n,)) for p, n in (((1, 1), 0), ((1, 1), 1), ((2, 2), 0))]


@st.composite
def pair_lists(draw: st.DrawFn) -> list[TokenizedPair]:
    pool = draw(prompts)
    drawn = st.tuples(st.sampled_from(pool), responses)
    return [TokenizedPair(*one) for one in draw(st.lists(drawn, min_size=1, max_size=14))]


def packs_of(
    pairs: Sequence[TokenizedPair], budget: int, indices: Sequence[int] | None = None
) -> list[Pack]:
    return list(plan(pairs, range(len(pairs)) if indices is None else indices, budget=budget))


def branches_of(packs: Sequence[Pack]) -> list[int]:
    return [b.index for pack in packs for group in pack.groups for b in group.branches]


@given(pair_lists(), budgets)
def test_every_pair_is_in_exactly_one_pack(pairs: list[TokenizedPair], budget: int) -> None:
    assert sorted(branches_of(packs_of(pairs, budget))) == list(range(len(pairs)))


@given(pair_lists(), budgets, st.data())
def test_only_the_pairs_named_are_planned(
    pairs: list[TokenizedPair], budget: int, data: st.DataObject
) -> None:
    named = data.draw(st.permutations(range(len(pairs))))[: len(pairs) // 2]
    assert sorted(branches_of(packs_of(pairs, budget, named))) == sorted(named)


@example(ONE_TOKEN_RESUMED, 1)
@given(pair_lists(), budgets)
def test_only_a_single_response_exceeds_the_budget(pairs: list[TokenizedPair], budget: int) -> None:
    for pack in packs_of(pairs, budget):
        assert len(pack.ids) <= budget or len(branches_of([pack])) == 1


@given(pair_lists(), budgets)
def test_each_prompt_stands_in_the_rows_once_and_is_resumed_afterwards(
    pairs: list[TokenizedPair], budget: int
) -> None:
    seen: list[tuple[int, ...]] = []
    for pack in packs_of(pairs, budget):
        for place, group in enumerate(pack.groups):
            prompt = pairs[group.branches[0].index].prompt
            assert {pairs[branch.index].prompt for branch in group.branches} == {prompt}
            assert group.prompt_tokens == len(prompt)
            if group.resumed:
                assert place == 0
                assert seen[-1] == prompt
            else:
                assert pack.ids[group.start : group.stop] == prompt
                seen.append(prompt)
    assert sorted(seen) == sorted({pair.prompt for pair in pairs})


@given(pair_lists(), budgets)
def test_a_pack_is_kept_exactly_when_the_next_one_resumes_its_last_prompt(
    pairs: list[TokenizedPair], budget: int
) -> None:
    packs = packs_of(pairs, budget)
    resumes = [pack.groups[0].resumed for pack in packs]
    assert [pack.kept for pack in packs] == [*resumes[1:], False]
    assert not resumes[0]


@given(pair_lists(), budgets)
def test_a_branch_holds_its_response_without_the_last_token_at_the_positions_after_the_prompt(
    pairs: list[TokenizedPair], budget: int
) -> None:
    for pack in packs_of(pairs, budget):
        assert len(pack.ids) == len(pack.positions)
        for group in pack.groups:
            for branch in group.branches:
                span = slice(branch.start, branch.stop)
                body = pairs[branch.index].response[:-1]
                assert pack.ids[span] == body
                offset = group.prompt_tokens
                assert pack.positions[span] == tuple(range(offset, offset + len(body)))
            if not group.resumed:
                assert pack.positions[group.start : group.stop] == tuple(range(group.prompt_tokens))


@given(pair_lists(), budgets)
def test_rows_hold_nothing_but_prompts_and_branches(
    pairs: list[TokenizedPair], budget: int
) -> None:
    for pack in packs_of(pairs, budget):
        parts = [(g.start, g.stop) for g in pack.groups if not g.resumed]
        parts += [(b.start, b.stop) for g in pack.groups for b in g.branches]
        covered = sorted(at for start, stop in parts for at in range(start, stop))
        assert covered == list(range(len(pack.ids)))


@given(pair_lists(), budgets)
def test_predictions_count_every_response_token(pairs: list[TokenizedPair], budget: int) -> None:
    predicted = sum(pack.predictions for pack in packs_of(pairs, budget))
    assert predicted == sum(len(pair.response) for pair in pairs)


def test_responses_that_fit_together_share_one_pack() -> None:
    pairs = [
        TokenizedPair((1, 2), (3, 4)),
        TokenizedPair((5,), (6,)),
        TokenizedPair((1, 2), (7, 8)),
    ]
    (pack,) = packs_of(pairs, budget=5)
    assert pack.ids == (1, 2, 3, 7, 5)
    assert pack.positions == (0, 1, 2, 2, 0)


@pytest.mark.parametrize("budget", [1, 3])
def test_a_long_prompt_is_computed_once_for_all_its_responses(budget: int) -> None:
    pairs = [TokenizedPair((1, 1, 1, 1), (3, number)) for number in range(3)]
    packs = packs_of(pairs, budget)
    assert packs[0].ids[:4] == (1, 1, 1, 1)
    assert sum(len(pack.ids) for pack in packs) == 4 + 3
    assert all(pack.groups[0].resumed for pack in packs[1:])


def test_a_short_prompt_leaves_its_packs_independent_and_even() -> None:
    pairs = [TokenizedPair((1, 2), (3,) * 11) for _ in range(40)]
    packs = packs_of(pairs, budget=128)
    assert sorted(branches_of(packs)) == list(range(40))
    assert [pack.kept for pack in packs] == [False] * 4
    assert all(pack.ids[:2] == (1, 2) and not pack.groups[0].resumed for pack in packs)
    assert {len(pack.ids) for pack in packs} == {102}


def test_no_pairs_make_no_packs() -> None:
    assert packs_of([], budget=8) == []
