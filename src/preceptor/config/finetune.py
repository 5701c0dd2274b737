"""How a prediction is validated: the tables `[train]` and `[evaluate]` of a study file.

The questions are the same for every teacher, so an instruction that overlaps with one is left out of
training. All teachers then train on the same instructions.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from preceptor.config.ability import AbilityOptions
from preceptor.config.base import ModelTable, Request, Table, Texts
from preceptor.config.curation import NGRAM_HELP, Equal
from preceptor.config.judges import PRESETS as JUDGES
from preceptor.config.recipe import Recipe
from preceptor.config.rewards import RewardModelTable, require_served

HARNESS = "lm-eval"
"""The benchmark whose questions are tasks of the harness."""

SAFETY = "safety"
"""The benchmark that rules check or a chat model judges, on files of the user's too."""

STUDENT = "student"
"""The word for the student before fine-tuning as baseline."""

OWN = "benchmark"
"""The word for the benchmark's own baseline."""


class Train(Recipe):
    """How every student is fine-tuned on every teacher's responses: the recipe, and which responses."""

    rows: int | None = Field(
        None,
        ge=1,
        description="At most so many instructions, the same for every teacher, drawn by the study's seed; "
        "nested.",
    )
    teachers: tuple[str, ...] = Field(
        (), description="Names of the teachers to fine-tune on; by default all that are compared."
    )
    seeds: int = Field(
        1,
        ge=1,
        le=100,
        description="Fine-tuning runs per teacher, from `seed` upwards; its outcome is their mean.",
    )
    whole_only: bool = Field(
        False,
        description="Leave out instructions with a response, of any teacher, that max_length would cut.",
    )
    exclude_ngram: int = Field(8, ge=1, description=NGRAM_HELP)
    equal: Equal = Field(
        "rows",
        description="What every teacher gives as many of: rows, or tokens that are trained on, to within a "
        "response: of longer ones fewer, in the order drawn.",
    )

    @field_validator("teachers")
    @classmethod
    def _an_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"a teacher is named twice: {', '.join(value)}")
        if len(value) == 1:
            raise ValueError(f"only '{value[0]}' is named: an order needs two teachers or more")
        return value

    def recipe(self, template: str) -> Recipe:
        """Return the recipe alone, with the student's template where `[train]` names none."""
        fields = {name: getattr(self, name) for name in Recipe.model_fields}
        if self.chat_template == "auto":
            fields["chat_template"] = template
        return Recipe(**fields)


class ChatJudge(ModelTable):
    """A chat model that names the better of two answers; see docs/how-to/evaluation.md."""

    kind: Literal["chat"] = "chat"
    model: str = Field(description="Preset, Hub id, local folder, or the name as served.")
    max_length: int = Field(8192, ge=2, description="Tokens of question and both answers.")
    engine: Literal["transformers", "openai"] = Field(
        "transformers", description="Run here, or served (see [runtime.endpoints])."
    )
    prompt: str | None = Field(None, description="File with the judge's prompt; by default ours.")
    logprobs: bool = Field(
        True,
        description="False reads the letter it writes, for endpoints without log-probabilities.",
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=2,
        description="For a served judge that refuses 0: its verdicts are then drawn.",
    )
    request: Request = Field(
        default_factory=Request,
        description="For a served judge: what else its requests say, such as reasoning_effort.",
    )
    verdict_by_letter: bool = Field(
        False,
        description="Choose between two letters also where the benchmark has written judgements.",
    )
    swap_positions: bool = Field(
        False,
        description="Show each pair in both orders; to a judge that is run here they always are.",
    )

    @model_validator(mode="after")
    def _readable(self) -> "ChatJudge":
        if not self.logprobs and self.engine != "openai":
            raise ValueError("logprobs = false is for engine = 'openai': leave it out")
        require_served(self.engine, self.temperature, self.request)
        return self

    @property
    def located(self) -> str:
        """What is loaded or asked for: the preset's Hub id, else the model as it was named."""
        named = self.engine == "transformers" and self.model in JUDGES
        return JUDGES[self.model].model if named else self.model


class RewardJudge(RewardModelTable):
    """A reward model that scores both answers; never the one whose rewards made the prediction."""

    kind: Literal["reward"] = "reward"


class Evaluate(Table):
    """What the fine-tuned students are asked, and who judges their answers.

    A study may have several, each a dimension with an observed order of its own.
    """

    name: str | None = Field(
        None, min_length=1, description="What the dimension is called; by default what is asked."
    )
    benchmarks: Texts = Field(
        (),
        description="Such as alpaca_eval and arena_hard, whose mean is AP; or one that is checked by rules.",
    )
    questions: Texts = Field(
        (),
        description="Files or Hub data sets of held-out instructions, instead of benchmarks; or the file "
        "of a benchmark that is checked by rules. Without a judge, answers are checked against references.",
    )
    limit: int | None = Field(
        None, ge=2, description="Ask at most so many of each, drawn by their content; nested."
    )
    baseline: str | None = Field(
        None,
        description="Whose answers are the baseline: 'student' (before fine-tuning, same template), "
        "'benchmark' (its own), or a file of answers. By default a benchmark's own, else the student.",
    )
    max_tokens: int = Field(2048, ge=1, description="Tokens of an answer at most.")
    temperature: float = Field(0.0, ge=0, le=5, description="0 is greedy.")
    tasks: Texts = Field(
        (), description="Of the benchmark lm-eval: its tasks, such as mmlu and gsm8k, pooled."
    )
    num_fewshot: int | None = Field(
        None, ge=0, description="Of lm-eval: examples before each question; else as the task says."
    )
    task_folder: str | None = Field(
        None, description="Of lm-eval: a folder of further tasks as YAML files."
    )
    metric: str | None = Field(
        None, description="Of lm-eval: what scores a question; by default a task's first metric."
    )
    apply_chat_template: bool = Field(
        False, description="Of lm-eval: render prompts with the fine-tuned model's chat template."
    )
    judge: Annotated[ChatJudge | RewardJudge, Field(discriminator="kind")] | None = Field(
        None,
        description="Who judges: kind = 'chat' or 'reward'; without, answers are checked by rules. Of safety "
        "a chat model may judge whether answers refuse.",
    )

    @model_validator(mode="after")
    def _answerable(self) -> "Evaluate":
        self._require_harness()
        if self.judge is None:
            return self._checkable()
        own = self.questions and self.benchmarks == (SAFETY,)
        if bool(self.benchmarks) == bool(self.questions) and not own:
            raise ValueError("give either benchmarks or questions, to ask the fine-tuned students")
        if len(set(self.benchmarks)) < len(self.benchmarks):
            raise ValueError(f"a benchmark is named twice: {', '.join(self.benchmarks)}")
        if self.questions and not self.benchmarks and self.baseline == OWN:
            raise ValueError(
                "baseline = 'benchmark' is for benchmarks: questions of your own have none. Say "
                "'student', or name a file of answers"
            )
        if len(self.benchmarks) > 1 and self.held_against != OWN:
            raise ValueError(
                "several benchmarks are judged against their own baselines: leave baseline out, "
                "or name one benchmark"
            )
        if len(self.benchmarks) > 1 and self.limit is not None:
            raise ValueError(
                "AP over parts of the benchmarks is withheld: leave limit out, or name one benchmark"
            )
        return self

    def _require_harness(self) -> None:
        """Refuse what is said of lm-eval without it, and what it cannot take."""
        given = self.model_fields_set & {
            *("tasks", "num_fewshot", "task_folder", "metric", "apply_chat_template")
        }
        if HARNESS not in self.benchmarks:
            if given:
                raise ValueError(
                    f"{', '.join(sorted(given))} is for the benchmark lm-eval: say benchmarks = "
                    f"'{HARNESS}', or leave it out"
                )
            return
        if not self.tasks:
            raise ValueError("lm-eval needs tasks, such as tasks = ['mmlu', 'gsm8k']")
        fixed = {"questions", "judge", "baseline", "max_tokens", "temperature"}
        if refused := sorted(self.model_fields_set & fixed):
            raise ValueError(
                f"lm-eval asks, answers and scores as its tasks say: leave {', '.join(refused)} out"
            )

    def _checkable(self) -> "Evaluate":
        """Return the table without a judge, where it can do without one."""
        if not self.benchmarks and not self.questions:
            raise ValueError("give benchmarks or questions, to ask the fine-tuned students")
        if len(self.benchmarks) > 1:
            raise ValueError(
                "several benchmarks without a judge: give each an [[evaluate]] of its own, or a judge"
            )
        if self.baseline is not None:
            raise ValueError(
                "a baseline is compared with by a judge: give a judge, or leave it out"
            )
        return self

    @property
    def held_against(self) -> str:
        """The baseline, with the default resolved: 'student', 'benchmark', or a file."""
        return self.baseline or (OWN if self.benchmarks or self.judge is None else STUDENT)

    @property
    def harness(self) -> AbilityOptions:
        """How lm-eval runs its tasks."""
        return AbilityOptions(
            num_fewshot=self.num_fewshot,
            task_folder=self.task_folder,
            chat_template=self.apply_chat_template,
        )

    @property
    def label(self) -> str:
        """The dimension's name: the one given, else what is asked."""
        return self.name or " and ".join(self.tasks or self.benchmarks or self.questions)
