"""Control tokens of every known family are cut apart in texts, and nothing else is changed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor.engines.control_tokens import cut_apart, spelled_in

TOKENS = {
    "ChatML, Qwen, Yi": "<|im_start|> <|im_end|> <|endoftext|>",
    "Llama 3 and 4": "<|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eot|>",
    "Llama 2, Mistral": "<s> </s> [INST] [/INST] <<SYS>> <</SYS>> [/SYSTEM_PROMPT] [TOOL_CALLS]",
    "Gemma": "<bos> <eos> <start_of_turn> <end_of_turn> <|turn> <turn|> <pad>",
    "Phi, Zephyr, OLMo, GLM": "<|user|> <|assistant|> <|end|> <|system|> [gMASK] <sop>",
    "DeepSeek": "<\uff5cUser\uff5c> <\uff5cAssistant\uff5c> <\uff5cend\u2581of\u2581sentence\uff5c>",
    "Command": "<|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <BOS_TOKEN> <EOS_TOKEN>",
    "gpt-oss, Granite": "<|channel|> <|message|> <|return|> <|start_of_role|> <|end_of_role|>",
    "EXAONE, MiniMax, Kimi": "[|user|] [|endofturn|] ]~b] ]~!b[ [e~[ <|im_middle|> [EOS] [EOT]",
    "Nemotron, Seed, Baichuan": "<extra_id_1> <SPECIAL_12> <seed:bos> <reserved_106> [UNUSED_TOKEN_145]",
    "BERT": "[CLS] [SEP] [MASK] [UNK]",
}
WITHIN = "<think> </think> <tool_call> [THINK] \u25c1/think\u25b7 <seed:think>"
EVERY = [token for tokens in TOKENS.values() for token in tokens.split()]


@pytest.mark.parametrize("family", TOKENS)
def test_the_tokens_of_every_family_are_found_and_cut(family: str):
    text = f"a{TOKENS[family]}b"
    assert spelled_in(text) == TOKENS[family].split()
    assert (
        cut_apart(text) == f"a{' '.join(f'{one[0]} {one[1:]}' for one in TOKENS[family].split())}b"
    )


def test_marks_of_reasoning_are_cut_and_end_no_turn():
    assert spelled_in(WITHIN) == []
    assert not re.search(r"[<\[\u25c1]\S", cut_apart(WITHIN))


@given(st.lists(st.sampled_from([*EVERY, "<", "|", "]", "~b]", "im_", ">", "x", " "]), max_size=12))
def test_no_token_is_left_or_made_wherever_they_overlap(pieces: list[str]):
    cut = cut_apart("".join(pieces))
    assert not [token for token in EVERY if token in cut]
    assert cut_apart(cut) == cut


@pytest.mark.parametrize(
    "text",
    [
        "if a < b | c > d:",
        "x[i] <<= 3",
        "| a | b |",
        "[INFO] [TODO] [A]",
        "<b>bold</b>",
        "a<|b",
        "List<String>",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str):
    assert cut_apart(text) == text
