"""A likelihood engine: every token costs one nat; ranks and entropies are unknown."""

from preceptor import Measured, TokenStatistics

NAN = float("nan")


class LossOnly:
    """Gives every token a loss of one nat, as a server that knows neither ranks nor entropies."""

    measures = ("loss",)
    released = 0

    @classmethod
    def load(cls, located, student, runtime):
        return cls()

    def measure(self, pairs):
        for index, pair in enumerate(pairs):
            tokens = len(pair.response)
            yield [Measured(index, TokenStatistics(tokens, float(tokens), NAN, NAN))]

    def release(self):
        LossOnly.released += 1
