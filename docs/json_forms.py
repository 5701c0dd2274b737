"""The forms of all JSON that commands write for other programs, of which their JSON Schemas are made.

A form is the class that is written where there is one, else a TypedDict that says what a command puts
together. `schema_version` is added to each. `tests/test_json_forms.py` holds what the commands write to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired

from pydantic import ConfigDict
from render_json import RankingForm
from typing_extensions import TypedDict

from preceptor.config.catalogue import CatalogueEntry
from preceptor.pipeline.estimate import FeeEstimate, GenerationEstimate, StepEstimate
from preceptor.ranking.places import FormedMetric, Trust
from preceptor.ranking.race.look import Ending, Look
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.result import Amounts, Racer
from preceptor.ranking.verdict import Verdict
from preceptor.report.tokens import RowTokens
from preceptor.studies.choice import Choice
from preceptor.studies.finding import Finding
from preceptor.studies.record import Record
from preceptor.types import Warning
from preceptor.validation.estimate import FinetuneEstimate
from preceptor.validation.result import AnswerFigures, FinetunedFigures


@dataclass(frozen=True)
class Form:
    """What some commands write: the class of the object, or of each in a list, and what it is about."""

    kind: Any
    commands: str
    holds: str


class RaceForm(TypedDict):
    """A race, for one student by one metric. Bounds that are not there are null."""

    student: str
    reward: str | None
    by: str
    metric: FormedMetric
    options: RaceOptions
    ending: Ending
    rows: int
    racers: list[Racer]
    looks: list[Look]
    costs: list[Amounts]
    full: Amounts
    settings: dict[str, Any]
    warnings: list[Warning]
    trust: Trust | None
    recommended: str
    verdict: Verdict


class AgreementCell(TypedDict):
    """How well a column predicts a student's order, or on average all students' (`student` is null)."""

    column: str
    student: str | None
    rho: float
    ends_low: float
    ends_high: float
    permutation_p: float
    permutation_low: float
    permutation_high: float
    permutation_p_adjusted: float
    tau: float
    regret: float
    regret_share: float
    top_three: float


class ValidationAgreement(TypedDict):
    """How well the predicted orders agree with the observed ones."""

    teachers: list[str]
    cells: list[AgreementCell]
    means: list[AgreementCell]
    left_out: list[str]
    warnings: list[str]


class RankedEstimate(TypedDict):
    """A place in one dimension, and the value with its 95% interval."""

    rank: int
    value: float
    low: float
    high: float
    n: int


class TurnedPair(TypedDict):
    """`one` is clearly ahead of `other` in dimension `here`, and behind it in `there`."""

    one: str
    other: str
    here: str
    there: str


class DimensionForm(TypedDict):
    """One student's teachers in every dimension; `opposite` of `of` comparisons come out the other way."""

    student: str
    measures: Mapping[str, str]
    teachers: Mapping[str, Mapping[str, RankedEstimate]]
    turned: list[TurnedPair]
    opposite: int
    of: int
    notes: list[str]


class ValidationForm(TypedDict):
    """Predicted and observed orders, and how far they agree; `agreement` is null below three teachers."""

    predicted: list[RankingForm]
    observed: list[RankingForm]
    finetuned: list[FinetunedFigures]
    untuned: Mapping[str, AnswerFigures]
    agreement: ValidationAgreement | None
    dimensions: list[DimensionForm]
    verdict: list[str]


class JudgeCost(TypedDict):
    """What judging would take. `price` is at most the money in US dollars, null without prices."""

    judge: str
    requests: int
    stored: int
    prompt_tokens: int
    answer_tokens: int
    price: float | None


class ValidationPlan(TypedDict):
    """What validation would take; while responses lack `finetune_jobs` is empty, `disk` (bytes) null."""

    students: int
    teachers: list[str]
    runs: int
    questions: int
    finetune_jobs: list[FinetuneEstimate]
    untuned: list[GenerationEstimate]
    verdicts: list[JudgeCost]
    disk: int | None
    models: str


class PlanForm(TypedDict):
    """What a study would take. Seconds and money are null where no speed or no price is known.

    `sources` says how each file is read and who is asked. While responses are missing, `teachers`, of whose
    `instructions` `compared` have all responses, are null, and `later` names the steps that follow on them.
    """

    sources: list[str]
    rewards: list[str]
    teachers: int | None
    instructions: int | None
    compared: int | None
    generation: list[GenerationEstimate]
    steps: list[StepEstimate]
    fees: list[FeeEstimate]
    race: RaceOptions | None
    later: list[str]
    warnings: list[str]
    validation: ValidationPlan | None


class Interval(TypedDict):
    """The ends of a 95% interval; both null where there is none."""

    low: float
    high: float


class ComparedColumn(TypedDict):
    """A way to predict the order."""

    title: str
    metric: str
    higher_is_better: bool
    baseline: bool


class DifferenceForm(TypedDict):
    """One column's mean rho less another's on the same teachers and students.

    `needed` is roughly how many teachers let it clear zero, null where a thousand would not.
    """

    column: str
    against: str
    value: float
    ends: Interval
    p_better: float
    needed: int | None


class FamilyForm(TypedDict):
    """A column's mean rho once relatives are no longer taken for independent teachers."""

    column: str
    rho: float
    ends: Interval
    lowest: tuple[float, str]
    highest: tuple[float, str]
    within: float
    across: float


class CandidateForm(TypedDict):
    """One reading of CAR: its beta, and the transform of the mean rewards."""

    beta: float
    transform: str


class TriedForm(TypedDict):
    """A candidate's mean rho over students, its 95% interval, and the share of draws that prefer it."""

    candidate: CandidateForm
    rho: float
    ends: Interval
    chosen: float


class HeldOutForm(TypedDict):
    """What was chosen without one student or family, and how it and the default did on that one."""

    name: str
    chosen: CandidateForm
    value: float
    default: float


class CalibrationForm(TypedDict):
    """Readings of CAR, the best of them against the default, and the judgement on what was held out."""

    tried: list[TriedForm]
    best: CandidateForm
    difference: float
    ends: Interval
    students: list[HeldOutForm]
    families: list[HeldOutForm]
    teachers: int


class AgreementForm(TypedDict):
    """How well predicted orders match observed ones; null stands for what was not asked for.

    `teacher_families` has the family of each of `teachers`, in their order.
    """

    students: list[str]
    teachers: list[str]
    teacher_families: list[str]
    columns: list[ComparedColumn]
    cells: list[AgreementCell]
    means: list[AgreementCell]
    differences: list[DifferenceForm] | None
    families: list[FamilyForm] | None
    calibration: CalibrationForm | None
    verdict: str | None
    left_out: list[str]
    warnings: list[str]
    settings: dict[str, Any]


class StudyForm(TypedDict):
    """Outcomes of fine-tuning: `outcomes` is by student and teacher, higher is better."""

    name: str
    title: str
    source: str
    kind: str
    score: str
    marks: list[str]
    outcomes: Mapping[str, Mapping[str, float]]


class StudiesForm(TypedDict):
    """The studies that come with Preceptor, and one's own."""

    studies: list[StudyForm]


class StudyFindings(TypedDict):
    """What outcomes say.

    The fields of a study are there where it has a name; `tables` are xu2024's, as printed.
    """

    findings: list[Finding]
    tables: NotRequired[Mapping[str, list[dict[str, Any]]]]
    name: NotRequired[str]
    title: NotRequired[str]
    source: NotRequired[str]
    kind: NotRequired[str]
    score: NotRequired[str]
    marks: NotRequired[list[str]]
    outcomes: NotRequired[Mapping[str, Mapping[str, float]]]


class RecordForm(TypedDict):
    """What metrics have been worth on published outcomes; `choices` is empty without --by-student."""

    record: list[Record]
    choices: list[Choice]


class AbilityFigures(TypedDict):
    """A model's value in one metric of a task of lm-eval, over `n` documents."""

    task: str
    metric: str
    value: float
    standard_error: float | None
    n: int
    higher_is_better: bool


class AbilityDifference(TypedDict):
    """A change and the ends of its 95% interval."""

    value: float
    low: float
    high: float


class AbilityChangeForm(TypedDict):
    """What changed against the baseline; `paired` says that both answered the same documents."""

    task: str
    metric: str
    base: AbilityFigures
    difference: AbilityDifference
    paired: bool


class AbilityForm(TypedDict):
    """A model's general ability, and what fine-tuning changed where a baseline is named."""

    abilities: list[AbilityFigures]
    changes: list[AbilityChangeForm]


class StudentFigures(TypedDict):
    """A student's results: `model`, or `teacher` and `student`; measures with their ends; facts."""

    __pydantic_config__ = ConfigDict(extra="allow")
    warnings: list[str]


class EvaluationForm(TypedDict):
    """Results of students on benchmarks, and what holds for all of them."""

    results: list[StudentFigures]
    warnings: list[str]


class JudgeFigures(TypedDict):
    """How one judge agrees with the trusted one; each of the three is value, low and high, null for none."""

    comparisons: int
    questions: int
    models: int
    words: str
    accuracy: list[float] | None
    kappa: list[float] | None
    spearman: list[float] | None


class JudgeForm(TypedDict):
    """What a judge is worth; `first_place` is the share in which it preferred what stood first."""

    judge: str
    identity: str
    undecided: int
    first_place: float | None
    agreement: JudgeFigures
    longer_wins: JudgeFigures


class StoredForm(TypedDict):
    """What a part of the store holds.

    `age` is in seconds, null for no rows, `in_work` says who is adding to it.
    """

    identity: str
    kind: str
    name: str
    rows: int
    bytes: int
    age: float | None
    in_work: list[str]


class SourceForm(TypedDict):
    """What became of one source's instructions: `read` is the sum of `dropped` and `kept`."""

    read: int
    dropped: Mapping[str, int]
    kept: int
    without_column: Mapping[str, int]


class OverlapForm(TypedDict):
    """An instruction left out for the words that it shares with an evaluation question."""

    id: str
    source: str
    shared: str
    question: str


class InstructionsForm(TypedDict):
    """The report beside a file of instructions: what was done to every row."""

    kept: int
    options: dict[str, Any]
    checked_for_near_duplicates: int
    sources: Mapping[str, SourceForm]
    overlaps: list[OverlapForm]
    problems: Mapping[str, int]
    notes: list[str]
    output: str
    turns: str
    files: list[str]


FORMS: Mapping[str, Form] = {
    "race": Form(RaceForm, "`rank --race`, `run` with `[race]`", "a list of races"),
    "validation": Form(ValidationForm, "`run` with `[train]` and `[evaluate]`", "a validation"),
    "plan": Form(PlanForm, "`plan`", "what a study would take"),
    "agreement": Form(AgreementForm, "`agreement`", "predicted orders against observed ones"),
    "studies": Form(StudiesForm, "`studies list`", "outcome studies"),
    "findings": Form(StudyFindings, "`studies show`", "what outcomes say"),
    "record": Form(RecordForm, "`studies record`", "what metrics have been worth"),
    "tokens": Form(RowTokens, "`tokens`", "a response's tokens"),
    "ability": Form(AbilityForm, "`ability`", "results of lm-eval"),
    "evaluation": Form(EvaluationForm, "`evaluate`", "results on benchmarks"),
    "judge": Form(JudgeForm, "`evaluate --judge-agreement`", "what a judge is worth"),
    "store": Form(StoredForm, "`store list`", "a list of what is stored"),
    "teachers": Form(CatalogueEntry, "`list teachers`", "a list of teachers"),
    "instructions": Form(
        InstructionsForm, "`instructions`, beside its file as `FILE.report.json`", "a report"
    ),
}
"""Every form but the ranking's, by the name of its schema."""
