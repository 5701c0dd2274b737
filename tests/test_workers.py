"""Jobs run side by side, in the order of what makes what possible, and end together with their caller."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from preceptor.engines.packed.workers import side_by_side


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def tree(job: tuple[int, ...]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """A job that makes three more possible, twice over."""
    return job, [(*job, child) for child in range(3)] if len(job) < 3 else []


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_job_and_every_job_that_it_makes_possible_runs_once(workers: int) -> None:
    started: list[tuple[int, ...]] = []

    def run(job: tuple[int, ...]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
        started.append(job)
        return tree(job)

    found = list(side_by_side(run, [(0,), (1,)], workers))
    assert len(found) == len(set(found)) == 2 * (1 + 3 + 9)
    for job in started:
        assert len(job) == 1 or started.index(job[:-1]) < started.index(job)


def test_one_worker_finishes_what_a_job_made_possible_before_the_next() -> None:
    found = list(side_by_side(tree, [(0,), (1,)], workers=1))
    assert found == sorted(found)


def test_jobs_that_one_job_made_possible_run_side_by_side() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def run(job: str) -> tuple[str, list[str]]:
        if job == "prompt":
            return job, ["first", "second"]
        meeting.wait()
        return job, []

    assert sorted(side_by_side(run, ["prompt"], workers=2)) == ["first", "prompt", "second"]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_jobs_make_no_batches(workers: int) -> None:
    assert list(side_by_side(tree, [], workers)) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_is_raised_where_batches_are_taken(workers: int) -> None:
    def run(job: int) -> tuple[int, list[int]]:
        if job == 3:
            raise ValueError("the third")
        return job, []

    with pytest.raises(ValueError, match="the third"):
        list(side_by_side(run, range(100), workers))


def test_an_error_ends_the_workers_that_wait_for_jobs() -> None:
    before = threading.active_count()

    def run(job: int) -> tuple[int, list[int]]:
        time.sleep(0.1)  # the others find nothing to do and wait for what may follow
        raise ValueError

    with pytest.raises(ValueError):
        list(side_by_side(run, [0], workers=4))
    assert threading.active_count() == before


def test_closing_ends_the_workers_after_the_jobs_they_are_at() -> None:
    started: list[int] = []

    def run(job: int) -> tuple[int, list[int]]:
        started.append(job)
        return job, [job + 1000]

    batches = side_by_side(run, range(100), workers=2)
    next(batches)
    batches.close()
    count = len(started)
    assert count <= 8
    time.sleep(0.05)
    assert len(started) == count
