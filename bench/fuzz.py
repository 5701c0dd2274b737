"""Give Preceptor thousands of hostile files, folders, templates and damaged stores, and count what comes.

Every input is made by chance from the seed and its own number, so any can be made again alone
(`--room inputs --first 812 --count 1`) and a campaign can go on where it stopped. Each runs in a process that
is watched: over 60 s is a hang, over 4 GB too much memory. What may come is a result that is right, or a
PreceptorError. A traceback, a row that is lost or wrong, a damage that is not found or not repaired by asking
again is a fault. Printed as JSON, room by room; the exit status is 1 where there is any.

    python bench/fuzz.py                     # the full size
    python bench/fuzz.py --room store --count 500 --seed 7
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fuzzing.campaign import Bounds, campaign, summary
from fuzzing.rooms import ROOMS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--room", choices=ROOMS, action="append", help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, help="default: the full size of the room")
    parser.add_argument("--seconds", type=float, default=Bounds.seconds, help="longer is a hang")
    given = parser.parse_args()
    bounds = Bounds(seconds=given.seconds)
    found = {}
    for name in given.room or ROOMS:
        last = given.first + given.count if given.count else ROOMS[name].count
        numbers = range(given.first, last)
        found[name] = summary(campaign(name, ROOMS[name], numbers, seed=given.seed, bounds=bounds))
        print(name, {k: v for k, v in found[name].items() if k != "faults"}, file=sys.stderr)
    print(json.dumps({"seed": given.seed, "first": given.first, **found}, indent=2))
    sys.exit(any(counts["faults"] for counts in found.values()))


if __name__ == "__main__":
    main()
