"""Time and memory of one large ranking: 20 teachers x 100,000 instructions x 8 measures.

Run it with `python bench/ranking_scale.py`; options make it smaller. The one line of JSON holds the
seconds of `rank()` alone, the peak resident memory, and how much of that came on top of the
measurements. On a machine whose cores are busy, set OPENBLAS_NUM_THREADS=1: threads of a matrix
product that wait for each other lose more than they gain. The numbers stay the same.
"""

import argparse
import json
import resource
import sys
import time

import numpy as np

from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import Measurements, rank

MEASURES = ("reward", "loss", "perplexity", "ifd", "token_rank", "entropy", "length", "tokens")


def random_measurements(teachers: int, instructions: int) -> Measurements:
    """Return log-normal measurements whose means rise slightly from teacher to teacher."""
    rng = np.random.default_rng(0)
    values = {}
    for measure in MEASURES:
        array = rng.lognormal(sigma=0.5, size=(teachers, instructions))
        array *= np.linspace(1.0, 1.1, teachers)[:, None]
        values[measure] = array
    labels = tuple(f"teacher-{place:02d}" for place in range(teachers))
    return Measurements(labels, instructions, values)


def peak_megabytes() -> float:
    """Return the peak resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teachers", type=int, default=20)
    parser.add_argument("--instructions", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=2000)
    arguments = parser.parse_args()
    measurements = random_measurements(arguments.teachers, arguments.instructions)
    before = peak_megabytes()
    start, busy = time.perf_counter(), time.process_time()
    ranking = rank(
        measurements, student="bench", options=RankingOptions(n_resamples=arguments.draws)
    )
    seconds = time.perf_counter() - start
    result = {
        "seconds": round(seconds, 2),
        "processor_seconds": round(time.process_time() - busy, 2),
        "peak_megabytes": round(peak_megabytes()),
        "extra_megabytes": round(peak_megabytes() - before),
        "rows": arguments.teachers * arguments.instructions,
        "measures": len(MEASURES),
        "draws": arguments.draws,
        "winner": ranking.teachers[0].teacher,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
