"""Large arrays lie in files that go with them, and in memory where the disk has no room."""

from pathlib import Path

import numpy as np
import pytest

from preceptor.store.mapped import mapped_numbers


def test_numbers_are_kept_and_leave_no_file(private_cache: Path) -> None:
    found = mapped_numbers((3, 1000))
    found[...] = np.arange(3000).reshape(3, 1000)
    assert found.dtype == np.float64 and found.flags.c_contiguous
    assert found.sum() == 2999 * 1500
    assert list(private_cache.iterdir()) == []


def test_where_the_disk_has_no_room_they_are_in_memory(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    found = mapped_numbers((2, 5))
    found[...] = 1.0
    assert found.shape == (2, 5) and found.sum() == 10


def test_no_numbers_need_no_file(private_cache: Path) -> None:
    assert mapped_numbers((2, 0)).shape == (2, 0)
