"""Rewards that the data already carry: a numeric column read as a measure.

Nothing is computed and nothing is stored; a null or unreadable number is a note, not a zero.
"""

from collections.abc import Iterator, Sequence

from preceptor.types import Response, Score


class ColumnScorer:
    """Reads the number in `column` of the data as the measure `measure`."""

    def __init__(self, column: str, *, measure: str = "reward") -> None:
        self.column = column
        self.measures = (measure,)

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield the column's numbers, all at once."""
        yield [self._score(response) for response in responses]

    def _score(self, response: Response) -> Score:
        value = response.columns.get(self.column)
        if value is None:
            return Score(response.key, {}, f"null {self.measures[0]}")
        return Score(response.key, {self.measures[0]: value})
