"""How lm-eval measures what a model can do in general: the options of `preceptor ability`."""

from pydantic import Field

from preceptor.config.base import Table


class AbilityOptions(Table):
    """How the harness runs its tasks."""

    limit: int | None = Field(None, ge=1, description="Documents of each task; by default all.")
    num_fewshot: int | None = Field(
        None,
        ge=0,
        description="Examples before each question; by default as many as the task says.",
    )
    task_folder: str | None = Field(None, description="Folder of further tasks as YAML files.")
    chat_template: bool = Field(
        False, description="Render prompts with the model's own chat template."
    )
    batch_size: int = Field(8, ge=1, description="Documents at a time.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of examples and resampling.")
