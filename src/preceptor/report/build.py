"""Put a report together: the data of every ranking, how to make it again, and how it fared.

Everything is read from what is stored; where something is missing a report is refused, with what it would
take, rather than paid for.
"""

import logging
from collections.abc import Mapping, Sequence

from preceptor.agreement.compare import compare
from preceptor.agreement.orders import Observed, Prediction
from preceptor.agreement.table import AgreementTable
from preceptor.config.catalogue import SHIPPED
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.config.toml import study_text
from preceptor.errors import StudyError
from preceptor.pipeline.estimate import CostEstimate, estimate
from preceptor.pipeline.outcome import Outcome, compared
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.work import recorded
from preceptor.ranking.result import Ranking
from preceptor.report.data import Report
from preceptor.report.gather import numbers_of, ranking_data_of
from preceptor.store.store import Store

logger = logging.getLogger(__name__)


def stored_outcomes(study: Study, runtime: Runtime) -> list[Outcome]:
    """Return the outcomes of a study of which everything is stored.

    Raises:
        StudyError: responses or scores are missing; the message says which.
        PreceptorError: the study cannot be ranked as it stands.
    """
    if study.race is not None:
        raise StudyError(
            "A report shows a ranking of all teachers, and this study has [race]: `preceptor run STUDY.TOML "
            "--html FILE` draws the race, and pays for nothing that is stored."
        )
    found = estimate(study, runtime)
    if lacking := _lacking(found, study):
        raise StudyError(
            "A report pays for nothing, and of this study these are missing:\n"
            + "\n".join(f"  {line}" for line in lacking)
            + "\nGet them with `preceptor run` first."
        )
    return compared(list(Pipeline(study, runtime).outcomes(found.data)))


def _lacking(found: CostEstimate, study: Study) -> list[str]:
    """Return what is missing, a line for each teacher, best-of-N teacher and step."""
    lines = [
        f"{one.missing:,} responses of {one.teacher}" for one in found.generation if one.missing
    ]
    lines += [
        f"{step.missing.responses:,} scores: {step.step}, for {step.student}"
        for step in found.steps
        if step.missing.responses
    ]
    tables = [opened.selection.table.teachers for opened in found.data]
    lines += [
        f"the rewards by which {best_of_n.name} is chosen"
        for best_of_n in study.best_of_n
        if any(best_of_n.name not in teachers for teachers in tables)
    ]
    return lines


def report_of(
    found: Sequence[Outcome],
    runtime: Runtime,
    *,
    command: str,
    observed: Observed | None = None,
    outcome: str | None = None,
) -> Report:
    """Return everything a page shows of these outcomes of one study.

    Args:
        found: at least one.
        runtime: where their scores are stored.
        command: the command line that made them.
        observed: student -> teacher -> what was observed after fine-tuning, compared with the rankings.
        outcome: where that is from, in words.

    Raises:
        PreceptorError: scores or data can no longer be read, or too few teachers were observed.
    """
    rankings = [one.ranking for one in found]
    study = found[0].study
    return Report(
        rankings=ranking_data_of(found),
        title=f"Teachers for {' and '.join(dict.fromkeys(one.student for one in rankings))}",
        command=command,
        study_file=_study_file(study),
        versions=_versions(found, runtime),
        agreement=None if observed is None else agreement_of(rankings, observed),
        outcome=outcome,
    )


def _study_file(study: Study) -> str | None:
    """Return the study as TOML; None for the rare one that TOML cannot say."""
    try:
        return study_text(study)
    except StudyError as error:
        logger.info("The report shows no study file: %s", error)
        return None


def agreement_of(rankings: Sequence[Ranking], observed: Observed) -> AgreementTable:
    """Return how well every metric of these rankings agrees with what was observed.

    Draws and seed are the first ranking's, but at least 100 draws.

    Raises:
        StudyError: fewer than 3 teachers are both ranked and observed, or two have one label there.
    """
    settings = rankings[0].settings
    draws, seed = settings["n_resamples"], settings["seed"]
    assert isinstance(draws, int) and isinstance(seed, int)
    comparison = compare([_prediction(ranking) for ranking in rankings], observed)
    return AgreementTable(comparison, draws=max(draws, 100), seed=seed)


def _prediction(ranking: Ranking) -> Prediction:
    values: dict[str, Mapping[str, float | None]] = {}
    for name, numbers in numbers_of(ranking).items():
        label = SHIPPED.label(name)
        if label in values:
            raise StudyError(
                f"Two teachers are '{label}' to the catalogue, so that their outcomes cannot be kept "
                "apart. Give one of them a label of its own."
            )
        values[label] = numbers
    source = ranking.reward_source
    transformed = ranking.settings.get("transform", "raw") != "raw"
    return Prediction(ranking.student, "this report", values, source, transformed)


def _versions(found: Sequence[Outcome], runtime: Runtime) -> dict[str, str]:
    """Return the packages' versions as they stand beside the stored scores; several where they differ."""
    used = {step.partition.identity.digest for one in found for step in one.steps}
    cards = [
        partition.recorded
        for partition in Store(runtime.store).partitions()
        if partition.kind == "scores" and partition.identity.digest in used
    ]
    versions = {}
    for package in recorded(runtime, ""):
        seen = dict.fromkeys(str(card[package]) for card in cards if card.get(package))
        if package not in ("name", "device") and seen:
            versions[package] = ", ".join(seen)
    return versions
