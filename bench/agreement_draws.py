"""Speed of the bootstrap of Spearman's rho against scipy's, one draw at a time, in the same run.

Run it with `python bench/agreement_draws.py`: 2,000 draws of 19 teachers for nine metrics and five
students, as `preceptor agree` needs them. scipy does some of the draws; both must give the same numbers.
"""

import argparse
import json
import statistics
import time
import warnings

import numpy as np
from scipy.stats import spearmanr

from preceptor.agreement_draws import resample, resampled_spearman


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teachers", type=int, default=19)
    parser.add_argument("--cells", type=int, default=45)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--draws-of-scipy", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    predicted, observed = rng.normal(size=(2, given.cells, given.teachers))
    counts = resample(given.teachers, draws=given.draws, rng=rng)
    ours, peers, difference = [], [], 0.0
    for _ in range(given.rounds):
        begin = time.perf_counter()
        found = resampled_spearman(predicted, observed, counts)
        middle = time.perf_counter()
        expected = by_scipy(predicted, observed, counts[: given.draws_of_scipy])
        end = time.perf_counter()
        ours.append((middle - begin) / given.draws)
        peers.append((end - middle) / given.draws_of_scipy)
        apart = np.abs(found[: given.draws_of_scipy] - expected)
        difference = max(difference, float(np.nanmax(apart)))
    told = {
        "settings": vars(given),
        "seconds": round(statistics.median(ours) * given.draws, 3),
        "faster_than_scipy_by": round(
            statistics.median(b / a for a, b in zip(ours, peers, strict=True)), 1
        ),
        "largest_difference": difference,
    }
    print(json.dumps(told, indent=2))


def by_scipy(predicted: np.ndarray, observed: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return rho with each teacher written out as often as it was drawn."""
    result = np.empty((len(counts), len(predicted)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # draws of one teacher alone have no rho
        for draw, count in enumerate(counts):
            drawn = np.repeat(np.arange(len(count)), count.astype(int))
            for cell in range(len(predicted)):
                result[draw, cell] = spearmanr(predicted[cell, drawn], observed[cell, drawn])[0]
    return result


if __name__ == "__main__":
    main()
