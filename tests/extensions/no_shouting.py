"""A scorer: a reward of 1 for a response with few capitals, and 0 for any other."""

from dataclasses import dataclass

from preceptor import Identity, Score, Scorer


@dataclass(frozen=True)
class NoShouting(Scorer):
    """Whether at most this share of the letters are capitals."""

    limit: float = 0.5
    name = "no shouting"
    measures = columns = ("reward",)

    def identity(self):
        return Identity.of({"scorer": "no-shouting", "limit": self.limit})

    def score(self, responses):
        for response in responses:
            letters = [letter for letter in response.text or "" if letter.isalpha()]
            share = sum(map(str.isupper, letters)) / max(1, len(letters))
            yield [Score(response.key, {"reward": float(share <= self.limit)})]
