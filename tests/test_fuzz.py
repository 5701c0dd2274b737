"""The campaign of hostile files, small; and that it sees what it looks for."""

from pathlib import Path

import pytest

from fuzzing.campaign import Bounds, Wrong, campaign, chance_of, tried
from fuzzing.responses import compare
from fuzzing.rooms import ROOMS
from small_faults import Faulty

SMALL = {"inputs": 200, "folders": 4, "templates": 25, "gguf": 2, "store": 12}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ROOMS)
def test_nothing_hostile_is_a_traceback_and_no_row_is_lost_or_wrong(
    name: str, tmp_path: Path, private_cache: Path
):
    if name == "gguf":
        for package in ("gguf", "accelerate"):
            pytest.importorskip(package)
    room = ROOMS[name](tmp_path)
    for number in range(SMALL[name]):
        came, said = tried(room, chance_of(name, 1, number), number)
        assert came in ("passed", "refused"), f"{name} {number}: {said}"


def test_the_campaign_counts_hangs_crashes_and_memory_and_goes_on():
    counts = campaign("faulty", Faulty, range(8), seed=0, bounds=Bounds(2.0, 600))
    assert (counts.cases, counts.passed, counts.refused) == (8, 2, 1)
    assert [(one["number"], one["came"]) for one in counts.first] == [
        (2, "wrong"),
        (3, "traceback"),
        (4, "died"),
        (5, "hang"),
        (6, "over memory"),
    ]


ROWS = [("a", (("user", f"{n}?"),), f"{n}!", "1.0") for n in range(3)]


@pytest.mark.parametrize(
    "found", [ROWS[:2], ROWS[1:], [*ROWS, ROWS[0]], [ROWS[0], ("b", *ROWS[1][1:]), ROWS[2]]]
)
def test_a_lost_a_doubled_and_a_changed_row_are_seen(found: list):
    compare(ROWS, [[row] for row in ROWS])
    compare([ROWS[0], ROWS[2]], [[ROWS[0]], None, [ROWS[2]]])
    with pytest.raises(Wrong):
        compare(found, [[row] for row in ROWS])
