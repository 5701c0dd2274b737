"""Control tokens of chat templates where data spell them: found, and cut apart.

Where ids are made here, `Encoder` cuts what its own tokenizer knows. A server tokenises by itself, and which
tokens it takes for the end of a turn is not known; so those of every known family are cut in the text, by a
space after their first sign (`< |im_end|>`), which people and models still read. Turns that a template marks
in plain words (`### Assistant:`) cannot be told from text and stay.
"""

import logging
import re
from collections.abc import Iterable

logger = logging.getLogger(__name__)

_ANGLED = (
    "[|\uff5c][^|\uff5c<>\\s]{1,40}[|\uff5c]?",  # ChatML, Llama, Phi, Command, DeepSeek's wide bars, Gemma 4
    "[^|\uff5c<>\\s]{1,40}[|\uff5c]",
    "/?s",
    "(?:bos|eos|pad|unk|mask|sep|cls|sop|eop)",
    "(?:BOS|EOS|PAD|UNK|MASK|SEP|CLS)_TOKEN",
    "(?:start|end)_of_(?:turn|image)",
    "</?SYS>",
    "(?:extra_id_|SPECIAL_|reserved_|unused)[0-9]{1,4}",
    "seed:(?:bos|eos)",
)
_BRACKETED = (
    "/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|MODEL_SETTINGS)",
    "ARGS|CALL_ID|IMG|[gs]?MASK|CLS|SEP|PAD|UNK|BOS|EOS|EOT|UNUSED_TOKEN_[0-9]{1,4}",
    "\\|[^|\\]\\s]{1,40}\\|",  # EXAONE
)
_TURNS = (
    rf"<(?=((?:{'|'.join(_ANGLED)})>))|\[(?=((?:{'|'.join(_BRACKETED)})\]|e~\[))"
    "|\\](?=(~!?b[\\[\\]]))"  # MiniMax
)
_WITHIN = (
    "<(?=/?(?:think|thought|seed:think|tool_call|tool_response)>)"
    "|\\[(?=/?THINK\\])|\u25c1(?=/?think\u25b7)"
)
_TURN = re.compile(_TURNS)
_TOKEN = re.compile(f"(?:{_TURNS}|{_WITHIN})")
"""The first sign of a token; the rest is looked at and not taken, so that all that overlap are found."""


def spelled_in(text: str) -> list[str]:
    """Return the control tokens in a text that begin or end a turn, in order."""
    return [found[0] + "".join(filter(None, found.groups())) for found in _TURN.finditer(text)]


def cut_apart(text: str) -> str:
    """Return the text with a space after the first sign of each control token, and else unchanged.

    Marks of reasoning and of tool calls are cut too: who quotes one does not seem to end its thought.
    """
    return _TOKEN.sub(lambda found: f"{found[0]} ", text)


def tell_of_cuts(texts: Iterable[str], reader: str) -> None:
    """Log how many control tokens of texts under judgement `reader` is shown cut apart; nothing for none."""
    counts = [len(cut_apart(text)) - len(text) for text in texts]
    if any(counts):
        logger.warning(
            "%s is shown %d control tokens in %d texts under judgement cut apart, as in '< |im_end|>', so "
            "that none ends a turn",
            reader,
            sum(counts),
            sum(count > 0 for count in counts),
        )
