"""The launcher's files: accelerate reads them as what they are meant to be."""

from pathlib import Path

from accelerate.commands.config.config_args import load_config_from_file

from preceptor.finetuning.launch import CONFIGS, write_accelerate


def test_accelerate_reads_what_is_written(tmp_path: Path):
    written = write_accelerate(tmp_path / "launch")
    assert [path.name for path in written] == list(CONFIGS)
    fsdp, deepspeed = (load_config_from_file(str(path)) for path in written)
    for config in (fsdp, deepspeed):
        assert config.num_processes == 4
        assert config.mixed_precision == "bf16"
    assert fsdp.distributed_type == "FSDP"
    assert fsdp.fsdp_config["fsdp_version"] == 2
    assert deepspeed.distributed_type == "DEEPSPEED"
    assert deepspeed.deepspeed_config["zero_stage"] == 3


def test_the_examples_are_what_is_written(tmp_path: Path):
    examples = Path(__file__).parents[1] / "examples" / "accelerate"
    for path in write_accelerate(tmp_path):
        assert (examples / path.name).read_text() == path.read_text()
