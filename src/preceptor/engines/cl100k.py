"""Tokens of OpenAI's encoding `cl100k_base`, which the paper (4.2) and the benchmarks count lengths in.

The vocabulary lies beside this file, as OpenAI publishes it (MIT licence; SHA-256 in the tests), so that
counting never needs the network. `tiktoken` alone would fetch it.
"""

import gzip
from base64 import b64decode
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiktoken import Encoding

_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
    r"|\s*[\r\n]|\s+(?!\S)|\s"
)
"""How `cl100k_base` cuts a text into words (`tiktoken_ext.openai_public`)."""


def count_tokens(text: str) -> int:
    """Return how many tokens of `cl100k_base` a text has; control tokens spelled in it are text."""
    return len(_encoding().encode_ordinary(text))


@cache
def _encoding() -> "Encoding":
    from tiktoken import Encoding

    packed = files("preceptor.engines").joinpath("cl100k_base.tiktoken.gz").read_bytes()
    pairs = map(bytes.split, gzip.decompress(packed).splitlines())
    ranks = {b64decode(token): int(rank) for token, rank in pairs}
    return Encoding("cl100k_base", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})
