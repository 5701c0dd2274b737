"""What a tuning is known by, and that a killed one goes on to the same weights."""

import signal
import time
from pathlib import Path

import pytest

from preceptor.engines.models import locate
from preceptor.errors import StoreError, StudyError
from preceptor.training.recipe import Lora
from preceptor.training.record import TrainingFolder, tuned_identity
from preceptor.training.trainer import Moment
from small_study import preceptor, start
from small_training import QUICK, log_of, tuned, uneven, write_data

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

PATIENCE = 240.0
RECIPE = QUICK.model_copy(update={"dtype": "float32"})


def test_student_rows_recipe_and_template_name_a_tuning(tmp_path: Path, model_folder: Path):
    located, digest = locate(str(model_folder)), uneven(4).digest
    known = tuned_identity(located, digest, RECIPE)
    assert known == tuned_identity(located, digest, RECIPE)
    assert known.spec["student"] == dict(located.identity)
    others = (
        tuned_identity(located, uneven(5).digest, RECIPE),
        tuned_identity(located, digest, RECIPE.model_copy(update={"epochs": 3})),
        tuned_identity(located, digest, RECIPE.model_copy(update={"template": "gemma"})),
    )
    assert len({known.digest, *(other.digest for other in others)}) == 4


def test_a_template_that_is_not_known_is_refused_by_name(
    model_folder: Path,
):
    with pytest.raises(StudyError, match="No template 'gema'"):
        tuned_identity(
            locate(str(model_folder)), "0", RECIPE.model_copy(update={"template": "gema"})
        )


def test_a_checkpoint_counts_only_with_the_mark_of_its_end(tmp_path: Path):
    folder = TrainingFolder(tmp_path)
    for step in (2, 10, 12):
        (folder.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
    assert folder.newest_checkpoint() is None
    for step in (2, 10):
        folder.mark_whole(step)
    newest = folder.newest_checkpoint()
    assert newest is not None and newest.name == "checkpoint-10"
    folder.remove_torn()
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [
        "checkpoint-10",
        "checkpoint-2",
    ]


def test_a_damaged_record_is_an_error(tmp_path: Path, model_folder: Path):
    folder = TrainingFolder(tmp_path)
    folder.inner.mkdir()
    (folder.inner / "identity.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        folder.begin(tuned_identity(locate(str(model_folder)), "0", RECIPE))


@pytest.fixture
def words(tmp_path: Path, model_folder: Path) -> list[object]:
    """A tuning of twelve steps; dropout draws in each, so that lost random states would show."""
    data = write_data(tmp_path / "rows.jsonl", uneven(16))
    words: list[object] = ["train", data, "--student", model_folder, "--device", "cpu"]
    words += ["--batch", "4", "--epochs", "3", "--save-steps", "2", "--warmup-steps", "2"]
    return [*words, "--learning-rate", "1e-3", "--lora", "--lora-dropout", "0.2"]


def kill_after_a_checkpoint(output: Path, words: list[object]) -> None:
    """Begin in a process of its own and kill it once a checkpoint is whole."""
    deadline = time.monotonic() + PATIENCE
    with start(*words, "--output", output) as process:
        try:
            while TrainingFolder(output).newest_checkpoint() is None:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.005)
        finally:
            process.kill()


def same_model(one: Path, other: Path) -> bool:
    names = ("model.safetensors", "training/adapter/adapter_model.safetensors")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_killed_tuning_goes_on_to_the_same_weights(tmp_path: Path, words: list[object]):
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    kill_after_a_checkpoint(rough, words)
    assert not (rough / "config.json").exists()
    for output in (rough, calm):
        result = preceptor(*words, "--output", output)
        assert result.exit_code == 0, result.output
    assert [step["step"] for step in log_of(rough)] == list(range(1, 13))
    assert log_of(calm) == log_of(rough)
    assert same_model(calm, rough)
    assert not (rough / "training" / "checkpoints").exists()


def test_an_interrupted_tuning_keeps_its_step_and_goes_on(tmp_path: Path, model_folder: Path):
    def interrupt(moment: Moment) -> None:
        if moment.step == 2:
            signal.raise_signal(signal.SIGINT)

    located, output = locate(str(model_folder)), tmp_path / "out"
    recipe = QUICK.model_copy(update={"batch": 2, "lora": Lora(dropout=0.2)})
    with pytest.raises(KeyboardInterrupt):
        tuned(located, uneven(10), recipe, output=output, watch=interrupt)
    newest = TrainingFolder(output).newest_checkpoint()
    assert newest is not None and newest.name == "checkpoint-3"
    steps: list[int] = []
    tuned(
        located, uneven(10), recipe, output=output, watch=lambda moment: steps.append(moment.step)
    )
    assert steps == [4, 5]
    tuned(located, uneven(10), recipe, output=tmp_path / "calm")
    assert same_model(output, tmp_path / "calm")
