"""Study files: paths beside them, a file to start from, a schema, and teachers of one's own."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from preceptor.agreement.compare import compare
from preceptor.agreement.orders import Prediction
from preceptor.config.base import checked
from preceptor.config.catalogue import SHIPPED
from preceptor.config.runtime import Runtime
from preceptor.config.schema import study_schema, write_start
from preceptor.config.study import Study, StudyFile, read_catalogue
from preceptor.config.teachers import TeacherPoint
from preceptor.errors import StudyError
from preceptor.pipeline.pipeline import Pipeline
from small_study import preceptor, write_rows

ROOT = Path(__file__).parents[1]
OWN = """
[[teachers]]
name = "ours-7b"
model = "acme/ours-7b"
family = "Ours"
parameters = 7
licence = "Acme licence"
price_in = 1.5
price_out = 4
[[teachers]]
name = "ours-70b"
model = "acme/ours-70b"
family = "Ours"
parameters = 70
licence = "MIT"
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return path


def study_with(*teachers: dict[str, object], **tables: object) -> Study:
    given = {"data": {"instructions": "q.jsonl"}, "teachers": teachers, **tables}
    return checked(Study, given, where="here")


def test_relative_paths_are_relative_to_the_file_wherever_the_command_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "there"
    (folder / "models" / "mine").mkdir(parents=True)
    (folder / "q.jsonl").write_text("{}")
    (folder / "study.toml").write_text("""
        data.responses = ["answers/*.jsonl", "owner/name", "/absolute.jsonl"]
        data.instructions = "q.jsonl"
        [[teachers]]
        model = "models/mine"
        [[students]]
        model = "google/gemma-2-2b"
        chat_template = "./own.jinja"
        [runtime]
        store = "../store"
    """)
    monkeypatch.chdir(tmp_path)
    file = StudyFile.read("there/study.toml")
    data = file.study.data
    assert data.responses == ("there/answers/*.jsonl", "owner/name", "/absolute.jsonl")
    assert data.instructions == ("there/q.jsonl",)
    assert file.study.teachers[0].model == "there/models/mine"
    (student,) = file.study.students
    assert (student.model, student.chat_template) == ("google/gemma-2-2b", "there/own.jinja")
    assert file.runtime.store == "there/../store"
    monkeypatch.chdir(folder)
    assert StudyFile.read("study.toml").study.teachers[0].model == "models/mine"


def test_the_file_to_start_from_parses_and_replaces_nothing(tmp_path: Path):
    path = tmp_path / "study.toml"
    assert "preceptor plan" in preceptor("init", path).stdout
    assert StudyFile.read(path).study.students[0].model == "HuggingFaceTB/SmolLM2-135M"
    with pytest.raises(StudyError, match="exists: name another file"):
        write_start(path)


def test_the_schema_is_valid_and_every_example_keeps_to_it(tmp_path: Path):
    schema = json.loads(preceptor("init", "--schema", "-").stdout)
    assert schema == json.loads(json.dumps(study_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    write_start(tmp_path / "start.toml")
    for path in (*ROOT.glob("examples/*.toml"), tmp_path / "start.toml"):
        jsonschema.validate(tomllib.loads(path.read_text(encoding="utf-8")), schema)
    with pytest.raises(jsonschema.ValidationError, match="'draws' was unexpected"):
        jsonschema.validate({"data": {}, "ranking": {"draws": 9}}, schema)


def test_a_catalogue_of_ones_own_fills_in_what_a_table_leaves_open(catalogue: Path):
    study = study_with(
        {"model": "ours-7b", "licence": "another"},
        {"model": "ours-7b", "label": "warm", "temperature": [0.5, 1.0], "parameters": 8},
        catalogue=str(catalogue),
    )
    plain, warm = study.teachers
    assert (plain.name, plain.located, plain.family) == ("ours-7b", "acme/ours-7b", "Ours")
    assert (plain.licence, plain.price_in, plain.price_out) == ("another", 1.5, 4)
    known = study.known
    assert [known.size(point.name) for point in warm.points()] == [8, 8]
    assert {known.family(point.name) for point in warm.points()} == {"Ours"}
    assert known.size("ours-70b") == 70
    assert known.size("gemma-2-9b-it") == 9
    assert [type(point) for point in plain.points()] == [TeacherPoint]


def test_a_study_file_is_a_catalogue_of_its_teachers(tmp_path: Path):
    path = tmp_path / "study.toml"
    path.write_text("""
        data.instructions = "q.jsonl"
        [[teachers]]
        model = "acme/ours"
        label = "ours"
        family = "Acme"
        parameters = 3
    """)
    known = read_catalogue(path)
    assert (known.family("ours"), known.size("ours")) == ("Acme", 3)
    assert known.find("gemma-2-9b-it") == SHIPPED.find("gemma-2-9b-it")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[teachers]]\nname = "a"\n', "a teacher has no model"),
        ('[[teachers]]\nname = "a"\nmodel = "b"\nlicense = "MIT"\n', "Did you mean 'licence'?"),
        ("[[teachers", "is not valid TOML"),
        ("family = 3\n", "'family' is 3: expected tables, each under [[family]]"),
        ("licences = 3\n", "'licences' is 3: expected a table"),
        (
            '[licences]\nX = "maybe"\n[[teachers]]\nname = "a"\nmodel = "b"\nlicence = "X"\n',
            "expected one of free, conditions, barred",
        ),
        ('[[family]]\nteachers = "x"\n', "'teachers' is 'x'"),
        ('[[teachers]]\nname = "a"\nmodel = "b"\nparameters = nan\n', "parameters: Input should"),
        ('[[teachers]]\nname = "a"\nmodel = "b"\nlicence = ["x"]\n', "licence: Input should"),
    ],
)
def test_a_catalogue_that_cannot_be_read_is_refused(tmp_path: Path, text: str, said: str):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(StudyError) as caught:
        study_with({"model": "a"}, catalogue=str(path))
    assert said in str(caught.value)


def test_families_and_sizes_of_an_agreement_come_from_ones_own_catalogue(catalogue: Path):
    names = ["ours-7b", "ours-70b", "gemma-2-9b-it"]
    values = {name: {"car": float(place)} for place, name in enumerate(names)}
    observed = {"S": {name: float(place) for place, name in enumerate(names)}}
    found = compare(
        [Prediction("S", "file", values)], observed, catalogue=read_catalogue(catalogue)
    )
    assert sorted(found.families) == ["Gemma 2", "Ours", "Ours"]
    sizes = dict(zip(found.teachers, found.column("size").values[0].tolist(), strict=True))
    assert sizes == {"ours-7b": 7, "ours-70b": 70, "gemma-2-9b-it": 9}


@pytest.mark.parametrize(
    ("teacher", "allowed", "said"),
    [
        ({"model": "qwen3-8b"}, ["free"], None),
        ({"model": "qwen3-8b"}, ["apache-2.0"], None),
        ({"model": "llama-3.1-8b-instruct"}, ["conditions"], None),
        ({"model": "llama-3.1-8b-instruct"}, ["free"], "is 'Llama 3.1 Community'"),
        ({"model": "llama-3-8b-instruct"}, ["conditions"], "is 'Llama 3 Community'"),
        ({"model": "acme/ours"}, ["free"], "is not known"),
        ({"model": "acme/ours", "licence": "MIT"}, ["free"], None),
        ({"model": "qwen3-8b", "licence": "Mine"}, ["free"], "is 'Mine'"),
    ],
)
def test_a_teacher_whose_licence_is_not_allowed_is_refused(
    teacher: dict[str, object], allowed: list[str], said: str | None
):
    if said is None:
        study_with(teacher, allowed_licences=allowed)
        return
    with pytest.raises(StudyError) as caught:
        study_with(teacher, allowed_licences=allowed)
    assert said in str(caught.value)


def test_a_licence_that_is_not_allowed_is_refused_of_teachers_in_files_too(tmp_path: Path):
    rows = [
        {"instruction": f"{n}?", "generator": name, "output": "a" * n}
        for n in (1, 2, 3)
        for name in ("qwen3-8b", "llama-3-8b-instruct")
    ]
    path = write_rows(tmp_path / "both.jsonl", rows)
    tables = {"data": {"responses": str(path)}, "allowed_licences": ["free"], "no_student": True}
    study = checked(Study, tables, where="here")
    with pytest.raises(StudyError, match="licence of the teacher 'llama-3-8b-instruct'"):
        Pipeline(study, Runtime(store=str(tmp_path / "store"))).load()


def test_the_list_of_teachers_holds_ones_own_and_keeps_to_a_licence(catalogue: Path):
    words = ("list", "teachers", "--catalogue", catalogue, "--json", "-")
    listed = json.loads(preceptor(*words).stdout)
    assert [entry["name"] for entry in listed[:2]] == ["ours-7b", "ours-70b"]
    assert len(listed) == 2 + len(SHIPPED.entries)
    free = json.loads(preceptor(*words, "--licence", "free").stdout)
    assert {entry["licence"] for entry in free} == {"MIT", "Apache-2.0"}
    (one,) = json.loads(preceptor(*words, "--licence", "acme licence").stdout)
    assert one["name"] == "ours-7b"
    assert "not stated" not in preceptor("list", "teachers").stdout


def test_students_in_folders_of_one_name_get_distinct_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("one/final", "two/final"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "one" / "final")
    tables = {"data": {"responses": "a"}, "students": [{"model": "."}]}
    assert checked(Study, tables, where="here").students[0].name == "final"
    tables["students"] = [{"model": "."}, {"model": str(tmp_path / "two" / "final")}]
    study = checked(Study, tables, where="here")
    assert [student.name for student in study.students] == ["one/final", "two/final"]
    tables["students"] = [{"model": "."}, {"model": "../final"}]
    with pytest.raises(
        StudyError, match=r"named twice: final, final\. Leave one out, or give it a label"
    ):
        checked(Study, tables, where="here")
    tables["students"] = [{"model": "."}, {"model": ".", "label": "again", "max_length": 9}]
    names = [student.name for student in checked(Study, tables, where="here").students]
    assert names == ["final", "again"]


def test_a_name_too_long_for_any_file_is_a_name(tmp_path: Path):
    (tmp_path / "a.toml").write_text(
        f'data.responses = "a"\nstudents = [{{model = "{"y" * 5000}"}}]'
    )
    assert StudyFile.read(tmp_path / "a.toml").study.students[0].model == "y" * 5000


def test_toml_that_is_nested_too_deeply_is_refused_in_words(tmp_path: Path):
    file = tmp_path / "study.toml"
    file.write_text("a = " + "[" * 100_000, encoding="utf-8")
    with pytest.raises(StudyError, match="not valid TOML: nested too deeply"):
        StudyFile.read(file)
