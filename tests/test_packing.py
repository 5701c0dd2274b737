"""Packs hold every pair once, respect the budget and compute each prompt once."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preceptor.engines.base import TokenizedPair
from preceptor.engines.packed.packing import Pack, Plan, plan

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


def plans_of(pairs: Sequence[TokenizedPair], budget: int) -> list[Plan]:
    return list(plan(pairs, range(len(pairs)), budget=budget))


def packs_of(
    pairs: Sequence[TokenizedPair], budget: int, indices: Sequence[int] | None = None
) -> list[Pack]:
    plans = plan(pairs, range(len(pairs)) if indices is None else indices, budget=budget)
    return [pack for one in plans for pack in (one.pack, *one.resuming)]


def branches_of(packs: Sequence[Pack]) -> list[int]:
    return [index for pack in packs for index in pack.indices]


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
def test_only_a_single_prompt_or_response_exceeds_the_budget(
    pairs: list[TokenizedPair], budget: int
) -> None:
    for pack in packs_of(pairs, budget):
        assert len(pack.ids) <= budget or len(pack.indices) <= 1


@given(pair_lists(), budgets)
def test_each_prompt_stands_in_the_rows_once(pairs: list[TokenizedPair], budget: int) -> None:
    groups = [(pack, group) for pack in packs_of(pairs, budget) for group in pack.groups]
    seen = [pack.ids[group.start : group.stop] for pack, group in groups if not group.resumed]
    assert sorted(seen) == sorted({pair.prompt for pair in pairs})
    for _, group in groups:
        prompts = {pairs[branch.index].prompt for branch in group.branches}
        assert len(prompts) <= 1
        assert all(len(prompt) == group.prompt_tokens for prompt in prompts)


@given(pair_lists(), budgets)
def test_what_resumes_a_prompt_runs_after_a_pack_that_holds_nothing_else(
    pairs: list[TokenizedPair], budget: int
) -> None:
    for one in plans_of(pairs, budget):
        assert one.tokens == sum(len(pack.ids) for pack in (one.pack, *one.resuming))
        assert not any(group.resumed for group in one.pack.groups)
        assert bool(one.resuming) == (not one.pack.indices)
        for pack in one.resuming:
            (group,) = pack.groups
            assert group.resumed
            assert {pairs[index].prompt for index in pack.indices} == {one.pack.ids}


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
    assert packs[0].ids == (1, 1, 1, 1)
    assert sum(len(pack.ids) for pack in packs) == 4 + 3
    assert all(pack.groups[0].resumed for pack in packs[1:])


def test_packs_of_one_prompt_are_even() -> None:
    pairs = [TokenizedPair((1, 2), (3,) * 11) for _ in range(40)]
    (one,) = plans_of(pairs, budget=128)
    assert sorted(branches_of(one.resuming)) == list(range(40))
    assert {len(pack.ids) for pack in one.resuming} == {100}


def test_no_pairs_make_no_packs() -> None:
    assert packs_of([], budget=8) == []
