"""How often 95% intervals of the difference of two paired shares cover it, for few questions.

    python bench/paired_shares.py

Every outcome of n questions, weighed by 600 draws of the true shares (half over the whole range, half where
answers seldom differ), so only the draws are chosen by chance: seed 0. A minute on one core.
"""

import math

import numpy as np

from preceptor.ranking.inference import NORMAL, Moments, _ends, _gaps, scores_of
from preceptor.ranking.measurements import Common
from preceptor.ranking.proportions import paired_shares_interval
from preceptor.ranking.quantities import measured

SIZES = (8, 12, 24)
Ends = tuple[np.ndarray, np.ndarray]


def student(table: np.ndarray, n: int) -> Ends:
    """Return Student's ends, moved towards Hall's, with the prior of values between bounds."""
    ends = []
    for both, one, other, _ in table:
        rows = np.zeros((2, n))
        rows[0, : both + one] = 1
        rows[1, :both] = rows[1, both + one : both + one + other] = 1
        common = Common(values={"win": rows}, denominators={}, n=n, dropped=(), notes=())
        scores = scores_of(measured(common)["win"], ["one", "other"])
        found = _ends(_gaps(scores), Moments(*scores.pairs), n)
        ends.append((found.low[0, 1], found.high[0, 1]))
    low, high = np.array(ends).T
    return low, high


def wilson(right: np.ndarray, n: int) -> Ends:
    """Return Wilson's ends of one share."""
    z, p = NORMAL, right / n
    middle = (p + z * z / 2 / n) / (1 + z * z / n)
    reach = z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    return middle - reach, middle + reach


def newcombe(table: np.ndarray, n: int) -> Ends:
    """Return the ends of Newcombe's (1998) method 10."""
    a, b, c, d = table.T.astype(float)
    (l1, u1), (l2, u2) = wilson(a + b, n), wilson(a + c, n)
    p1, p2 = (a + b) / n, (a + c) / n
    product = a * d - b * c
    corrected = np.where(product > n / 2, product - n / 2, np.where(product >= 0, 0.0, product))
    size = np.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    phi = np.divide(corrected, size, out=np.zeros_like(size), where=size > 0)
    down = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    up = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    return p1 - p2 - np.sqrt(np.maximum(down, 0)), p1 - p2 + np.sqrt(np.maximum(up, 0))


def main() -> None:
    """Print a line for each size and method."""
    rng = np.random.default_rng(0)
    for n in SIZES:
        table = np.array(
            [
                (a, b, c, n - a - b - c)
                for a in range(n + 1)
                for b in range(n + 1 - a)
                for c in range(n + 1 - a - b)
            ]
        )
        ways = [math.lgamma(n + 1) - sum(math.lgamma(k + 1) for k in row) for row in table]
        true = np.vstack([rng.dirichlet([1, 1, 1, 1], 300), rng.dirichlet([3, 0.5, 0.5, 3], 300)])
        true = np.maximum(true, 1e-9)
        chance = np.exp(np.array(ways) + np.log(true) @ table.T)
        difference = (true[:, 1] - true[:, 2])[:, None]
        methods = {
            "Student with a prior": student(table, n),
            "Tango": tuple(paired_shares_interval(table[:, 1], table[:, 2], n, reach=NORMAL)),
            "Newcombe": newcombe(table, n),
        }
        for name, (low, high) in methods.items():
            inside = (low - 1e-9 <= difference) & (difference <= high + 1e-9)
            covered = (chance * inside).sum(axis=1)
            width = (chance * (high - low)).sum(axis=1).mean()
            print(
                f"n {n:2}  {name:20}  covers {covered.mean():.3f}, least {covered.min():.3f}, "
                f"width {width:.3f}"
            )


if __name__ == "__main__":
    main()
