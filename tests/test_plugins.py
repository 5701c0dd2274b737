"""What other packages register is found by name, and whose it is stands in every error."""

from pathlib import Path

import pytest

from plugin_package import install
from preceptor.config.plugins import Registry
from preceptor.errors import StudyError

SHAPES: Registry[type] = Registry("shapes", "shape", {"list": list, "path": "pathlib:Path"})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_built_in_is_the_thing_itself_or_imported_by_its_address():
    assert SHAPES["list"] is list
    assert SHAPES["path"] is Path


def test_another_packages_own_is_found_by_its_name(site: Path):
    install(site, "preceptor-round", "round_shapes", {"shapes": {"circle": "Circle"}})
    (site / "round_shapes.py").write_text("class Circle: pass\n")
    assert SHAPES.names() == ["list", "path", "circle"]
    assert SHAPES["circle"].__module__ == "round_shapes"


def test_an_unknown_name_is_told_what_exists(site: Path):
    install(site, "preceptor-round", "round_shapes", {"shapes": {"circle": "Circle"}})
    with pytest.raises(StudyError, match=r"No shape is called 'circel'; known are list, path, "):
        SHAPES["circel"]


def test_a_package_that_cannot_be_imported_is_named_in_one_sentence(site: Path):
    install(site, "preceptor-broken", "broken_shapes", {"shapes": {"square": "Square"}})
    (site / "broken_shapes.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(StudyError, match=r"'preceptor-broken 1\.0' cannot be loaded: ModuleNotF"):
        SHAPES["square"]


def test_a_name_that_is_built_in_is_refused(site: Path):
    install(site, "preceptor-round", "round_shapes", {"shapes": {"list": "Circle"}})
    with pytest.raises(StudyError, match=r"'preceptor-round 1\.0' registers the shape 'list'"):
        SHAPES["path"]


def test_a_name_that_two_packages_register_is_refused(site: Path):
    install(site, "preceptor-round", "round_shapes", {"shapes": {"circle": "Circle"}})
    install(site, "preceptor-ring", "ring_shapes", {"shapes": {"circle": "Ring"}})
    with pytest.raises(StudyError, match="already has"):
        SHAPES.names()
