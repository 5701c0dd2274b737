"""Turn a study into a data set ready to train on: rank, pick, write, with a card that says how.

A teacher's data set holds all its responses; a choice for each instruction covers those compared. Everything
the choice rests on stands in the card.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from preceptor.config.export import Export
from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.config.study import Study
from preceptor.data.overlap import OVERLAP, EvaluationQuestions
from preceptor.errors import StudyError, nearest
from preceptor.export.writer import (
    Card,
    Example,
    Pair,
    TeacherUse,
    Written,
    require_free,
    write_examples,
    write_pairs,
)
from preceptor.pipeline import plan
from preceptor.pipeline import select as picking
from preceptor.pipeline.amounts import NOT_COMMON, TargetTokens, equal_tokens, sizes_of
from preceptor.pipeline.load import LoadedData, all_of
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.race import race
from preceptor.pipeline.score import carry_out, step_of
from preceptor.pipeline.select import Picked
from preceptor.pipeline.sources import Scope
from preceptor.pipeline.work import Progress
from preceptor.ranking.race.result import RaceResult
from preceptor.ranking.result import Ranking
from preceptor.ranking.verdict import Claim
from preceptor.scorers.rewards import reward_scorers

Entry = TypeVar("Entry", Example, Pair)

FURTHER = "further samples of an instruction; --every-sample takes them"
"""Why responses of the teacher itself are left out."""


def export(
    study: Study, runtime: Runtime, folder: Path, options: Export, progress: Progress
) -> Written:
    """Write the data set that the options choose to `folder`; only what the store lacks is computed.

    Raises:
        PreceptorError: the study cannot be ranked as far as the choice needs, or the folder cannot be
            written.
    """
    student = _student(study, options)
    # All that can be refused is, before anything is paid for.
    require_free(folder, overwrite=options.overwrite)
    _require_teacher(study, options.teacher)
    pipeline = Pipeline(study, runtime, progress)
    if study.race is not None:
        return _raced(pipeline, folder, options, student).teacher()
    if options.complete:
        raise StudyError(
            "complete is for a study with [race]: without one every teacher is asked everything. Leave it "
            "out."
        )
    if pipeline.source.jobs and (options.each or options.pairs):
        _require_reward(study, references=bool(pipeline.source.questions.references))
    data = pipeline.load()
    chosen = data[_place([one.reward_name for one in data], options)]
    work = _Export(pipeline, chosen, folder, options, student)
    return work.each() if options.each or options.pairs else work.teacher()


def _raced(pipeline: Pipeline, folder: Path, options: Export, student: Student | None) -> "_Export":
    """Return the export of the teacher that a race chooses, asked for the rest where that is wanted."""
    study = pipeline.study
    if options.equal == "tokens":
        raise StudyError(
            "[race] leaves teachers with few responses, so that amounts cannot be made equal: leave equal "
            "out, or leave [race] out of the study."
        )
    if options.each or options.pairs:
        raise StudyError(
            "Responses to each instruction are picked among all teachers, and [race] drops teachers: leave "
            "it out of the study, or export one teacher's responses."
        )
    place = _place(plan.labels(study.reward or (None,)), options)
    alone = {"students": (student,) if student else ()}
    result = race(pipeline.of(study.model_copy(update=alone)))[place]
    if options.teacher is None:
        _require_recommended(result)
    teacher = options.teacher or result.verdict().teacher
    scope = Scope(frozenset({teacher}), None if options.complete else result[teacher].rows)
    if not pipeline.source.jobs:
        scope = Scope(frozenset({teacher}))
    data = pipeline.load(scope)[place]
    return _Export(pipeline, data, folder, options, student, result)


def _student(study: Study, options: Export) -> Student | None:
    names = [student.name for student in study.students]
    if options.student is None and len(names) > 1:
        raise StudyError(f"The study has the students {', '.join(names)}: say for which to choose.")
    if options.student is not None and options.student not in names:
        known = ", ".join(names) or "none"
        raise StudyError(
            f"No student '{options.student}' in the study. Known: {known}."
            f"{nearest(options.student, names)}"
        )
    found = [s for s in study.students if options.student in (None, s.name)]
    return found[0] if found else None


def _require_teacher(study: Study, teacher: str | None) -> None:
    """Refuse a misspelled teacher before any is asked; those in files are known only when they are read."""
    names = [point.name for one in study.teachers for point in one.points()]
    names += [one.name for one in study.best_of_n]
    if teacher is not None and not study.data.responses and teacher not in names:
        known = ", ".join(f"'{name}'" for name in names)
        raise StudyError(f"No teacher '{teacher}'. Known: {known}.{nearest(teacher, names)}")


def _require_reward(study: Study, *, references: bool) -> None:
    if None in plan.reward_sources(study, references=references):
        raise StudyError(
            "Responses to each instruction are picked by their rewards, and the study has none: give it a "
            "[reward], or take one teacher's."
        )


def _place(names: Sequence[str], options: Export) -> int:
    """Return the place of the source of rewards that the options name."""
    if options.reward is None and len(names) > 1:
        raise StudyError(f"The study has the rewards {'; '.join(names)}: say by which to choose.")
    if options.reward is not None and options.reward not in names:
        raise StudyError(
            f"No reward '{options.reward}' in the study. Known: {'; '.join(names)}."
            f"{nearest(options.reward, names)}"
        )
    return 0 if options.reward is None else names.index(options.reward)


def _require_recommended(ranking: Ranking | RaceResult) -> None:
    """Refuse to choose a teacher where none is recommended, but for one alone or made up to try out.

    Raises:
        StudyError: nobody is recommended.
    """
    verdict = ranking.verdict()
    tried_out = {"nothing-to-compare", "made-up"}
    if verdict.claim is Claim.NO_RECOMMENDATION and verdict.reasons[0].code not in tried_out:
        ways = (f" {one.text}" for one in ranking.warnings if one.code == "cheapest-reward")
        raise StudyError(
            f"No teacher is chosen, because none is recommended. {verdict} Give a source of rewards, or name "
            f"the teacher with --teacher.{''.join(ways)}"
        )


@dataclass(frozen=True)
class _Export:
    """One export under way."""

    pipeline: Pipeline
    data: LoadedData
    folder: Path
    options: Export
    student: Student | None
    race: RaceResult | None = None

    def teacher(self) -> Written:
        """Write one teacher's responses."""
        ranking: Ranking | RaceResult | None = None
        teacher, how = self.options.teacher, f"All responses of {self.options.teacher}, as named."
        if teacher is None:
            ranking = self.race or self._ranking()
            teacher = ranking.verdict().teacher
            _require_recommended(ranking)
            how = f"All responses of the teacher that comes first. {ranking.verdict()}"
        table = self.data.selection.table
        picked = picking.of_teacher(table, teacher, every_sample=self.options.every_sample)
        further = int((table.teacher == table.teachers.index(teacher)).sum()) - len(picked.rows)
        if further:
            how += (
                f" Of several samples of an instruction the first alone: {further:,} are left out."
            )
        left_out = {FURTHER: further} if further else {}
        if self.options.equal == "tokens":
            picked, said, beyond = self._equal(teacher, picked)
            how, left_out = f"{how} {said}", left_out | beyond
        picked = self._with_checks(picked)
        written = self._write(picked, self._card(how, [picked], ranking))
        return replace(written, skipped={**written.skipped, **left_out})

    def _equal(self, teacher: str, picked: Picked) -> tuple[Picked, str, dict[str, int]]:
        """Return as many target tokens as every teacher gives, how so, and how many rows are left out.

        All teachers' data sets hold the same instructions first, and end where the tersest has no more.
        """
        table = self.data.selection.table
        places = table.answered_by(table.teachers, seed=self.pipeline.study.ranking.seed)
        if not places:
            raise StudyError(
                "No instruction was answered by every teacher, so amounts cannot be equal. Leave equal out."
            )
        count = TargetTokens(self.student, self.pipeline.runtime)
        barred = EvaluationQuestions.of(self.options)
        first = equal_tokens(sizes_of(self.data.source, table, places, count=count, barred=barred))
        own = first[teacher]
        kept = np.isin(table.instruction[picked.rows], places[: own.count])
        counts = {
            own.why: len(places) - own.count,
            NOT_COMMON: len(picked.rows) - len(places),
        }
        rows = ", ".join(f"{one.count:,} of {name}" for name, one in first.items())
        said = (
            f"As many target tokens as every teacher gives, to within a response, by {count.by}: the first "
            f"instructions in the order drawn, {rows}."
        )
        return picked.where(kept), said, {why: number for why, number in counts.items() if number}

    def _with_checks(self, picked: Picked) -> Picked:
        """Return the rows with the rewards of checks, which cost little, and without those that have none."""
        reward = self.data.reward
        if reward is None or reward.kind not in ("reference", "rule"):
            return picked
        (scorer,) = reward_scorers(reward, self.pipeline.runtime)
        selection = all_of(self.data.selection.table, picked.rows)
        step = step_of(scorer, self.pipeline.runtime, self.data.source, selection)
        rewards = carry_out(step, self.pipeline.progress)["reward"]
        scorer.release()
        return Picked(picked.rows, {**picked.numbers, "reward": rewards}).where(
            np.isfinite(rewards)
        )

    def each(self) -> Written:
        """Write the best response to each instruction, or the best and the worst."""
        options, table = self.options, self.data.selection.table
        rule = options.each or "reward"
        found = picking.scored(self.pipeline, self.data, self.student, rule)
        whom = f", student {self.student.name}" if self.student and rule != "reward" else ""
        by = f"by {rule} of single responses ({self.data.reward_name}{whom})"
        if not options.pairs:
            picked = found.best()
            how = f"For each instruction the best response of any teacher {by}."
            return self._write(picked, self._card(how, [picked], None))
        chosen, rejected = found.pairs(margin=options.margin)
        apart = f", more than {options.margin:g} apart" if options.margin else ""
        how = f"For each instruction the best and the worst response of any teacher {by}{apart}."
        return write_pairs(
            self._apart(picking.pairs(self.data.source, table, chosen, rejected)),
            self.folder,
            format=options.format,
            card=self._card(how, [chosen, rejected], None),
            overwrite=options.overwrite,
        )

    def _write(self, picked: Picked, card: Card) -> Written:
        return write_examples(
            self._apart(picking.examples(self.data.source, self.data.selection.table, picked)),
            self.folder,
            layout=self.options.layout,
            format=self.options.format,
            card=card,
            overwrite=self.options.overwrite,
        )

    def _apart(self, found: Iterator[Entry]) -> Iterator[Entry | str]:
        """Yield why an entry is left out in the place of one that overlaps with evaluation questions."""
        questions = EvaluationQuestions.of(self.options)
        if questions is None:
            return found
        return (OVERLAP if questions.overlap(one.instruction) else one for one in found)

    def _ranking(self) -> Ranking:
        alone = {"students": (self.student,) if self.student else ()}
        study = self.pipeline.study.model_copy(update=alone)
        return next(self.pipeline.of(study).outcomes([self.data])).ranking

    def _card(
        self, how: str, picked: Sequence[Picked], ranking: Ranking | RaceResult | None
    ) -> Card:
        data, student, study = self.data, self.student, self.pipeline.study
        settings: dict[str, object] = {
            "reward": data.reward and data.reward_name,
            "layouts": [file.describe() for file in data.source.files],
            "skipped_rows": dict(data.skipped),
        }
        if self.options.equal == "tokens":
            settings["equal"] = "tokens"
        if self.options.exclude:
            settings["exclude"] = [Path(path).name for path in self.options.exclude]
            settings["exclude_ngram"] = self.options.exclude_ngram
        if data.source.jobs:
            settings["teachers"] = data.source.specs()
        warnings = data.warnings
        if ranking is not None:
            settings |= ranking.settings
            settings["responses"] = [Path(path).name for path in study.data.responses]
            settings["instructions"] = [Path(path).name for path in study.data.instructions]
            warnings = ranking.warnings
        return Card(
            title=f"Responses for {student.name}" if student else "Responses",
            how_chosen=how,
            student=student.name if student else None,
            teachers=_uses(data, study, picked),
            settings=settings,
            metrics=_known(ranking.to_records()) if ranking else [],
            warnings=[warning.text for warning in warnings],
        )


def _uses(data: LoadedData, study: Study, picked: Sequence[Picked]) -> list[TeacherUse]:
    """Return the teachers whose responses were taken, most rows first.

    A best-of-N teacher's texts are others', by whose models and licences they are.
    """
    table = data.selection.table
    counts = Counter(
        table.teachers[place] for one in picked for place in table.teacher[one.rows].tolist()
    )
    asked = {job.name: job.backend.teacher for job in data.source.jobs}
    single = [name for name in table.teachers if name not in {one.name for one in study.best_of_n}]
    chosen = {one.name: one.among(single) for one in study.best_of_n}
    uses, known = [], study.known
    for name, rows in counts.most_common():
        of = chosen[name].of if name in chosen else (name,)
        sampling = _joined(
            asked[one].described() if one in asked else "as in the data" for one in of
        )
        if name in chosen:
            by = "" if chosen[name].by == "reward" else f" by {chosen[name].by}"
            count = chosen[name].n or "all"
            sampling = f"{chosen[name].kind}{by} of {count} samples, {sampling}"
        entries = {one: known.find(one) for one in of}
        licences = [entry.licence for entry in entries.values() if entry and entry.licence]
        unknown = [] if len(licences) == len(of) else ["not known"]
        uses.append(
            TeacherUse(
                name=name,
                model=_joined(
                    _public(asked[one].model) if one in asked else entry.model if entry else one
                    for one, entry in entries.items()
                ),
                licence=_joined([*licences, *unknown]) if licences else None,
                rows=rows,
                sampling=sampling,
            )
        )
    return uses


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _public(model: str) -> str:
    """Return the model as a card may name it: of a path on this machine the last part."""
    return Path(model).name if os.path.exists(model) else model


def _known(records: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return the records without the fields of which nothing is known."""
    names = [name for name in records[0] if any(r[name] not in (None, {}) for r in records)]
    return [{name: record[name] for name in names} for record in records]
