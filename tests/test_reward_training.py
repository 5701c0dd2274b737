"""A reward model trained with TRL prefers better answers that it has not seen, and pairs give nothing away.

The model is trained once, on four kinds of pairs. Measured: 0.945 right on 400 held-out pairs
(on_topic 1.00, finished 0.99, fluent 0.93, repeated 0.86; chance 0.5); asserted: above 0.7.
"""

import numpy as np
import pytest

from preceptor.config.rewards import ModelReward
from preceptor.demo import demo_files
from preceptor.scorers.reward_model import RewardModel
from preceptor.types import Instruction, Response
from small_reward_model import (
    Pair,
    Recipe,
    build_model,
    conversation,
    pair_maker,
    preferred,
    rewards,
    trained_reward_model,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("one_thread")

# An untrained model's preferences within a kind go together, so that it strays from one half by more than
# independent pairs would: three seeds on 400 pairs, and room on both sides.
CHANCE = (0.4, 0.6)


def held_out_pairs():
    return pair_maker.make_pairs(pair_maker.HELD_OUT, dict.fromkeys(pair_maker.EASY, 100), seed=1)


def words_of(pairs):
    return {
        word.strip(".,?").lower()
        for pair in pairs
        for text in (pair.instruction, pair.chosen, pair.rejected)
        for word in text.split()
    }


def test_pairs_are_the_same_for_a_seed_and_others_for_another():
    made = [
        pair_maker.make_pairs(pair_maker.TRAIN, {"on_topic": 5}, seed=seed) for seed in (0, 0, 1)
    ]
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_held_out_words_and_numbers_are_never_met_in_training():
    training, other = pair_maker.TRAIN, pair_maker.HELD_OUT
    assert not set(training.words) & set(other.words)
    assert not set(training.numbers) & set(other.numbers)
    pairs = pair_maker.make_pairs(training, dict.fromkeys(pair_maker.EASY, 200), seed=0)
    assert not words_of(pairs) & set(other.words)


@pytest.mark.parametrize("kind", pair_maker.RULES)
def test_length_says_nothing_about_which_answer_is_better(kind):
    for world in (pair_maker.TRAIN, pair_maker.HELD_OUT):
        pairs = pair_maker.make_pairs(world, {kind: 200}, seed=0)
        assert pair_maker.length_accuracy(pairs) == pytest.approx(0.5, abs=0.005)


def test_sums_and_orders_are_right_in_chosen_and_wrong_in_rejected():
    for pair in pair_maker.make_pairs(pair_maker.TRAIN, {"added": 50}, seed=0):
        one, other = (int(word.strip("?")) for word in pair.instruction.split()[2::2])
        assert pair.chosen.split()[-1] == f"{one + other}."
        assert pair.rejected.split()[-1] != f"{one + other}."
    for pair in pair_maker.make_pairs(pair_maker.TRAIN, {"in_order": 50}, seed=0):
        down = "from largest" in pair.instruction
        for answer, right in ((pair.chosen, True), (pair.rejected, False)):
            numbers = [int(part) for part in answer.rstrip(".").split(",")]
            assert (numbers == sorted(numbers, reverse=down)) == right


def test_no_answer_of_the_demo_is_on_both_sides_of_one_instruction():
    pairs = pair_maker.zoo_pairs(seed=0)
    assert len(demo_files()) == 6
    assert len({pair.instruction for pair in pairs}) > 30
    chosen = {(pair.instruction, pair.chosen) for pair in pairs}
    assert not chosen & {(pair.instruction, pair.rejected) for pair in pairs}
    assert pair_maker.length_accuracy(pairs) == pytest.approx(0.5, abs=0.005)


@pytest.fixture(scope="module")
def loaded(trained_reward_model):  # noqa: F811
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, report = AutoModelForSequenceClassification.from_pretrained(
        trained_reward_model, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    return model, AutoTokenizer.from_pretrained(trained_reward_model)


def test_a_trained_reward_model_prefers_the_better_of_answers_it_has_not_seen(loaded):
    pairs = held_out_pairs()
    right = preferred(rewards(*loaded, pairs))
    assert right.mean() > 0.7, by_kind(right, pairs)


def test_an_untrained_reward_model_prefers_by_chance(loaded):
    _, tokenizer = loaded
    found = [
        preferred(rewards(build_model(tokenizer, Recipe(seed=seed)), tokenizer, held_out_pairs()))
        for seed in (1, 2, 3)
    ]
    assert CHANCE[0] < np.mean(found) < CHANCE[1]


def test_the_same_answer_is_worth_more_after_the_question_it_answers(loaded):
    # The two texts of a pair change places as the question changes, so no answer is better in itself.
    pairs = []
    for name, thing, place, cause in zip(*[iter(pair_maker.HELD_OUT.words[:160])] * 4, strict=True):
        start = f"{name.capitalize()} hid the {thing}"
        where, why = f"{start} in the {place}.", f"{start} because of {cause}."
        asked = f"did {name.capitalize()} hide the {thing}?"
        pairs.append(Pair("on_topic", f"Where {asked}", where, why))
        pairs.append(Pair("on_topic", f"Why {asked}", why, where))
    values = rewards(*loaded, pairs)
    assert preferred(values).mean() > 0.6


def test_the_saved_folder_holds_what_a_reader_of_reward_models_needs(loaded, trained_reward_model):  # noqa: F811
    model, tokenizer = loaded
    names = {path.name for path in trained_reward_model.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not any(name.endswith((".bin", ".pt")) for name in names)
    assert model.config.num_labels == 1
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    text = tokenizer.apply_chat_template(conversation("Ask.", "Reply."), tokenize=False)
    assert text == "<|im_start|>user\nAsk.<|im_end|>\n<|im_start|>assistant\nReply.<|im_end|>\n"


def test_the_reward_does_not_depend_on_the_padding_of_a_batch(loaded):
    pairs = held_out_pairs()[::40]
    together = rewards(*loaded, pairs)
    alone = np.concatenate([rewards(*loaded, [pair]) for pair in pairs])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def by_kind(right, pairs):
    return {
        kind: float(
            np.mean([value for value, pair in zip(right, pairs, strict=True) if pair.kind == kind])
        )
        for kind in pair_maker.EASY
    }


def test_the_scorer_gives_the_same_rewards_and_so_the_same_preferences(
    loaded,
    trained_reward_model,  # noqa: F811
):
    pairs = held_out_pairs()
    responses = [
        Response("any", Instruction.from_text(pair.instruction), answer)
        for pair in pairs
        for answer in (pair.chosen, pair.rejected)
    ]
    scorer = RewardModel(ModelReward(model=str(trained_reward_model)))
    found = {
        score.key: score.values["score"] for batch in scorer.score(responses) for score in batch
    }
    scores = np.array([found[response.key] for response in responses]).reshape(-1, 2)
    np.testing.assert_allclose(scores, rewards(*loaded, pairs), atol=1e-4)
    assert preferred(scores).mean() > 0.7
