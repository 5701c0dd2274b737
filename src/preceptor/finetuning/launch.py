"""Files for `accelerate launch`: sharding over several GPUs, with FSDP or with DeepSpeed's ZeRO 3.

How training is spread over devices changes no answer, so it stands in the launcher's file and not in the
recipe. The number of processes is all one has to change in it.
"""

from pathlib import Path

from preceptor.config.recipe import PAPER_DEVICES
from preceptor.finetuning.checkpoint import write_durably
from preceptor.finetuning.exports import yaml

_COMMON = {
    "compute_environment": "LOCAL_MACHINE",
    "machine_rank": 0,
    "main_training_function": "main",
    "mixed_precision": "bf16",
    "num_machines": 1,
    "num_processes": PAPER_DEVICES,
    "rdzv_backend": "static",
    "same_network": True,
    "use_cpu": False,
}

CONFIGS = {
    "fsdp.yaml": {
        **_COMMON,
        "distributed_type": "FSDP",
        "fsdp_config": {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": True,
            "fsdp_cpu_ram_efficient_loading": True,
            "fsdp_offload_params": False,
            # One whole set of weights is what a model folder holds.
            "fsdp_state_dict_type": "FULL_STATE_DICT",
        },
    },
    "deepspeed_zero3.yaml": {
        **_COMMON,
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {
            "zero_stage": 3,
            "zero3_init_flag": True,
            "zero3_save_16bit_model": True,
            "offload_optimizer_device": "none",
            "offload_param_device": "none",
            "deepspeed_multinode_launcher": "standard",
        },
    },
}
"""The files by name; each is what `accelerate launch --config_file` takes."""


def write_accelerate(folder: Path) -> list[Path]:
    """Write the files, each replacing one of its name, and return where they lie.

    Raises:
        StoreError: the disk refuses.
    """
    for name, config in CONFIGS.items():
        write_durably(folder / name, yaml(config).encode())
    return [folder / name for name in CONFIGS]
