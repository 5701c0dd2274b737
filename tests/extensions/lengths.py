"""A chart: the length of each teacher's responses."""

from preceptor import Chart


class Lengths:
    """Mean length, a bar for each teacher."""

    def __call__(self, data, families):
        rows = [
            {"teacher": result.teacher, "tokens": result.estimates["length"].value}
            for result in data.ranking
        ]
        words = "; ".join(f"{row['teacher']} {row['tokens']:.0f}" for row in rows)
        spec = {
            "datasets": {"lengths": rows},
            "data": {"name": "lengths"},
            "mark": "bar",
            "encoding": {
                "y": {"field": "teacher", "type": "nominal"},
                "x": {"field": "tokens", "type": "quantitative"},
            },
        }
        yield Chart(
            "lengths", "Length", "Mean length in tokens", "Longer is not better.", words, spec
        )
