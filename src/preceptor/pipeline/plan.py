"""What ranking for a student takes, decided before anything is computed: rewards, passes, metrics.

Nothing is loaded or read here: the scorers and measures are named, and what cannot be answered is refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from preceptor.config.rewards import ReferenceReward, Reward
from preceptor.config.runtime import Runtime
from preceptor.config.student import Reading, Student
from preceptor.config.study import Study
from preceptor.errors import StudyError, nearest
from preceptor.pipeline.best_of_n import require_derivable, without_reward
from preceptor.ranking.later_metrics import LATER_METRICS
from preceptor.ranking.measurements import require_measures
from preceptor.ranking.metrics import METRICS, CompatibilityAdjustedReward, Metric, of_plain_loss
from preceptor.scorers.base import Scorer
from preceptor.scorers.gradient import GradientScorer
from preceptor.scorers.length import LengthScorer
from preceptor.scorers.likelihood import APART, LikelihoodScorer, StudentModel
from preceptor.scorers.rewards import reward_scorers
from preceptor.scorers.token_measures import FORMED, LATER

CONDITIONAL = (
    "loss",
    "plain_loss",
    "perplexity",
    "token_rank",
    "tokens",
    "information",
)
"""Measures of the pass that sees the instruction."""

UNREQUESTED = frozenset(
    {"ifd", "ppl_gpt2", "ifd_gpt2", "persyn", *(metric.kind for metric in LATER_METRICS)}
)
"""Metrics that are formed only when asked for: most need another pass over a model, or more time."""

_OF_LAST_TURN = frozenset({"ifd", "ifd_gpt2", "scas_answer", "scas_question"})
"""Measures that hold a response against its instruction."""

REFERENCE = "_gpt2"
"""The end of the names of measures under the reference model."""


@dataclass(frozen=True)
class StudentPlan:
    """What ranking for one student takes: its scorers in order, and the metrics to form."""

    name: str
    scorers: tuple[Scorer, ...]
    metrics: tuple[Metric, ...]
    student: StudentModel | None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the metrics."""
        return tuple(metric.kind for metric in self.metrics)


def reward_sources(study: Study, *, references: bool) -> tuple[Reward | None, ...]:
    """Return where rewards come from, each for a ranking of its own; None is no reward at all.

    `references` says whether the data carry reference answers, which serve where nothing is named.
    """
    return study.reward or ((ReferenceReward(),) if references else (None,))


def labels(rewards: Sequence[Reward | None]) -> list[str]:
    """Return a label for each source of rewards, no two alike."""
    names = [reward.name if reward is not None else "none" for reward in rewards]
    return [
        name if names.count(name) == 1 else f"{name} ({1 + names[:place].count(name)})"
        for place, name in enumerate(names)
    ]


def every_scorer(study: Study, runtime: Runtime, *, references: bool) -> list[Scorer]:
    """Return every scorer that the study needs, its model found; nothing is loaded.

    `references` says whether the data have answers to check against.

    Raises:
        ModelError: a model is not found.
        StudyError: a metric needs what nothing gives, or a best-of-N teacher has nothing to choose from.
    """
    require_derivable(study)
    rewards = reward_sources(study, references=references)
    for best_of_n in study.best_of_n:
        if best_of_n.kind != "random" and best_of_n.reward is None and None in rewards:
            raise without_reward(best_of_n)
    found = [
        scorer
        for reward, student in product(rewards, study.students or (None,))
        for scorer in for_student(study, runtime, student, reward=reward).scorers
    ]
    found += [one for d in study.best_of_n for one in reward_scorers(d.reward, runtime)]
    for scorer in found:
        scorer.identity()
    return found


def for_student(
    study: Study, runtime: Runtime, student: Student | None, *, reward: Reward | None
) -> StudentPlan:
    """Return what ranking for `student` takes; None ranks by reward and length alone.

    Raises:
        StudyError: a metric needs a measure that nothing gives.
    """
    model = _likelihood_model(student, study, runtime) if student is not None else None
    metrics = study.metrics or _default_metrics(study, model, reward is not None)
    if not study.reading.is_plain:
        metrics = tuple(map(of_plain_loss, metrics))
    _require_of_reading(metrics, study.reading)
    needed = {measure for metric in metrics for measure in metric.needs}
    available = {"length", "perplexity_gpt2", "ifd_gpt2"}
    available |= {"reward"} if reward is not None else set()
    scorers: list[Scorer] = [LengthScorer()]
    if needed & {"reward", "reward_share"}:
        scorers += reward_scorers(reward, runtime)
    if model is not None:
        _require_of_engine(metrics, model)
        available |= {*APART} if study.reading.reasoning == "apart" else set()
        available |= {*CONDITIONAL, *LATER, *FORMED, "ifd", "likelihood_share", "g_norm", "grace"}
        available |= {"reward_share"} if reward is not None else set()
        scorers += _passes(model, needed, conditioning=study.reading.conditioning)
        scorers += [GradientScorer(LikelihoodScorer(model))] if needed & {"g_norm", "grace"} else []
    under_reference = {n.removesuffix(REFERENCE) for n in needed if n.endswith(REFERENCE)}
    if under_reference:
        reference = _likelihood_model(study.reference_model, study, runtime)
        scorers += _passes(reference, under_reference, suffix=REFERENCE)
    require_measures(metrics, available)
    _require_formed(study.by, metrics, available)
    return StudentPlan(student.name if student else "any student", tuple(scorers), metrics, model)


def _require_formed(by: str | None, metrics: Sequence[Metric], measures: Iterable[str]) -> None:
    """Refuse to order by what will not be formed, and say what it would need."""
    kinds = [metric.kind for metric in metrics]
    if by is None or by in kinds:
        return
    require_measures([METRICS[by]] if by in METRICS else [], measures)
    raise StudyError(
        f"Cannot order by '{by}': the metrics formed are {', '.join(kinds)}.{nearest(by, kinds)} Ask for it "
        "as a metric too, or order by one of these."
    )


def likelihood_of(study: Study, runtime: Runtime) -> LikelihoodScorer:
    """Return the likelihood pass of the study's one student."""
    (student,) = study.students
    return LikelihoodScorer(_likelihood_model(student, study, runtime))


def _likelihood_model(student: Student, study: Study, runtime: Runtime) -> StudentModel:
    return StudentModel(student, runtime, reading=study.reading)


def _require_of_reading(metrics: Iterable[Metric], reading: Reading) -> None:
    """Refuse what is not defined where every turn of the assistant counts: the user's stand among them."""
    if reading.turns == "last":
        return
    if reading.conditioning == "unconditional":
        raise StudyError(
            "turns = 'all' with conditioning = 'unconditional': the user's later turns stand between those "
            "that count, so there is no response without its instruction. Leave out one of the two."
        )
    for metric in metrics:
        if _OF_LAST_TURN & set(metric.needs):
            raise StudyError(
                f"Metric '{metric.kind}' is not defined over all turns: it holds one response against its "
                "instruction. Leave it out, or count the last turn alone (turns = 'last')."
            )


def _require_of_engine(metrics: Iterable[Metric], model: StudentModel) -> None:
    """Refuse a metric that needs what the student's likelihood engine does not give."""
    engine = model.student.engine
    for metric in metrics:
        if missing := sorted(model.lacking.intersection(metric.needs)):
            raise StudyError(
                f"Metric '{metric.kind}' needs the measure '{missing[0]}', which the likelihood engine "
                f"'{engine}' of the student '{model.student.name}' does not give; it gives "
                f"{', '.join(model.given)}. Leave the metric out, or give the student an engine "
                "that measures it, such as 'transformers'."
            )


def _default_metrics(
    study: Study, model: StudentModel | None, rewarded: bool
) -> tuple[Metric, ...]:
    measures = {"length"} | ({"reward"} if rewarded else set())
    measures |= set(CONDITIONAL) - model.lacking if model is not None else set()
    return tuple(
        CompatibilityAdjustedReward(beta=study.beta) if kind == "car" else metric
        for kind, metric in METRICS.items()
        if kind not in UNREQUESTED and measures.issuperset(metric.needs)
    )


def _passes(
    model: StudentModel,
    needed: Iterable[str],
    *,
    conditioning: str = "conditional",
    suffix: str = "",
) -> list[Scorer]:
    """Return the likelihood passes: the one without the instruction only when something needs it."""
    wanted = set(needed)
    unconditional = "ifd" in wanted or (conditioning == "unconditional" and "loss" in wanted)
    later = {FORMED.get(name, name) for name in wanted} & LATER.keys()
    conditional = wanted & {*CONDITIONAL, *APART, "likelihood_share"} - (
        {"loss"} if conditioning == "unconditional" else set()
    )
    passes: list[Scorer] = []
    if conditional or later or "ifd" in wanted:
        passes.append(LikelihoodScorer(model, suffix=suffix, wanted=later))
    if unconditional:
        passes.append(LikelihoodScorer(model, "unconditional", suffix=suffix))
    return passes
