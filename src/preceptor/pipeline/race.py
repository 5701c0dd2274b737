"""The line of a race: the same steps over ever more instructions, for whoever can still be the best.

Everything goes through the store as ever, and what is decided follows from the seed and the content: a race
that was killed goes on to the same decisions, and a full run later pays only for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from preceptor.config.study import Study
from preceptor.engines.pace import device_memory
from preceptor.errors import StudyError
from preceptor.pipeline.kept import Kept
from preceptor.pipeline.outcome import settings_of
from preceptor.pipeline.plan import every_scorer, for_student, reward_sources
from preceptor.pipeline.race_costs import Ledger, require_prices
from preceptor.pipeline.race_entry import Entry
from preceptor.pipeline.race_measures import Ahead, Measured, known_of, measured_on, without
from preceptor.pipeline.sources import Scope, StudySource
from preceptor.pipeline.trust import FoundKind, kind_of
from preceptor.pipeline.work import Amount, Progress, preflight
from preceptor.ranking.metrics import Metric
from preceptor.ranking.places import FormedMetric, Trust
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.race import Race
from preceptor.ranking.race.result import Racer, RaceResult
from preceptor.ranking.race.sequences import looks
from preceptor.ranking.race.table import look_lines
from preceptor.ranking.rank import ordering_metric
from preceptor.ranking.record import plain
from preceptor.ranking.warnings import negative_rewards
from preceptor.studies.record import line_of
from preceptor.types import Warning

if TYPE_CHECKING:
    from preceptor.pipeline.load import LoadedData
    from preceptor.pipeline.pipeline import Pipeline


OF_ALL = frozenset({"reward_share", "likelihood_share"})
"""Measures that depend on who is compared, and so change when a teacher leaves."""


def race(pipeline: Pipeline) -> list[RaceResult]:
    """Return the race for each student and source of rewards; all look at the same instructions.

    Raises:
        PreceptorError: one cannot be raced. What was asked and scored until then is stored.
    """
    return _Racing(pipeline).results()


class _Racing:
    """All races of one study under way."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.study, self.source = pipeline.study, pipeline.source
        self.kind = _kind(pipeline)
        self.options = self.study.race or RaceOptions()
        # What orders is all that is measured.
        self.line = pipeline.of(self.study.model_copy(update={"metrics": _metrics(pipeline)}))
        self.line.progress = _Working(pipeline.progress)
        memory = device_memory(pipeline.runtime.resolved_device())
        self.line.execute = self.kept = Kept(pipeline.execute, memory // 2)
        self.line.frees = False
        references = _have_references(self.source)
        scorers = every_scorer(self.line.study, pipeline.runtime, references=references)
        require_prices(self.source, scorers, self.options)
        asked = len(self.source.asked) or len(self.source.gathered(None).table.instructions)
        self.rows = min(asked, self.study.data.limit or asked)
        self.ledger = Ledger(self.rows, self.options)
        self.ahead = Ahead(self.source, self.study.ranking.seed)
        self.entries: list[Entry] = []

    def results(self) -> list[RaceResult]:
        """Race until every race is decided or the budget is spent."""
        try:
            self._run()
        finally:
            self.kept.release()
        return _compared([self._result(entry) for entry in self.entries])

    def _run(self) -> None:
        before = 0
        for rows in looks(self.options.start, self.rows):
            if before and not self.ledger.allows(self.running, rows):
                break
            if before and rows < self.rows and self._known:
                continue
            self._look(rows, before)
            before = rows
            if not self.running:
                break

    @property
    def running(self) -> frozenset[str]:
        """Who is still asked and scored, because any race needs it."""
        return frozenset(name for entry in self.entries for name in entry.running)

    @property
    def _known(self) -> bool:
        """Whether all that orders is known beforehand, so that looks in between would show the same."""
        running = [entry.race for entry in self.entries if entry.running]
        return all(race.known.keys() >= set(race.metric.needs) for race in running)

    def _look(self, rows: int, before: int) -> None:
        """Ask, load and score the first rows for whoever races, and let every race look at them."""
        self.line.study = self._lenient(rows)
        scope = Scope(self.running if before else None, rows)
        data = self.line.load(scope)
        if not before:
            self.entries = self._entered(data, rows)
        racing = [entry for entry in self.entries if entry.running or not before]
        for entry in racing:
            one = data[self.entries.index(entry) % len(data)]
            found = entry.last
            if before:
                narrowed = without(one, entry.running, self.line.study)
                texts = self.ahead.until(rows)
                found = measured_on(self.line, narrowed, entry.planned, texts)
            entry.look(found, rows=rows, before=before)
            for name, (responses, tokens) in found.tokens.items():
                self.ledger.note(name, rows, responses, tokens)
            self.ledger.note_judges(zip(found.steps, found.columns, strict=True))
            self.ledger.note_judges(one.chosen_by)
        self.ledger.close(self.source.within(scope))
        for entry in racing:
            self._tell(entry)

    def _lenient(self, rows: int) -> Study:
        """Return the study with a coverage to refuse at so few rows: two standard errors less."""
        least = max(0.0, self.study.ranking.min_coverage - rows**-0.5)
        ranking = self.study.ranking.model_copy(update={"min_coverage": least})
        return self.line.study.model_copy(update={"ranking": ranking})

    def _entered(self, data: Sequence[LoadedData], rows: int) -> list[Entry]:
        """Return the races at their first look, with what is known of all rows."""
        whole = [] if self.source.jobs else self.line.load(Scope(None, self.rows), spend=False)
        pairs = [(one, *self.line.plan(one, s)) for s, one in product(self.line.students, data)]
        # An address or a key that cannot be used is found before anything is loaded.
        preflight(step for *_, steps in pairs for step in steps)
        entries = []
        for place, (one, planned, _) in enumerate(pairs):
            found = measured_on(self.line, one, planned, self.ahead.until(rows))
            teachers = found.measurements.teachers
            known = (
                known_of(self.line, whole[place % len(data)], planned, teachers) if whole else {}
            )
            metric = self._metric(found)
            race = Race(metric, teachers, self.rows, self.options, known)
            entries.append(Entry(planned, race, found))
        return entries

    def _metric(self, found: Measured) -> Metric:
        """Return what orders; by default the reward where the first look gives CAR no meaning."""
        metrics = self.line.study.metrics
        common, _ = found.common([name for metric in metrics for name in metric.needs])
        meaningless = bool(negative_rewards(common, found.measurements.teachers))
        kind = self.kind.kind
        return ordering_metric(metrics, self.study.by, kind=kind, without_car=meaningless)

    def _tell(self, entry: Entry) -> None:
        race, took = entry.race, self.ledger.costs[-1]
        look, by = race.looks[-1], race.metric.kind
        self.line.progress.say(look_lines(look, of=len(race.teachers), by=by, took=took))

    def _result(self, entry: Entry) -> RaceResult:
        race, data = entry.race, entry.last.data
        settings = settings_of(data, self.study, entry.planned, entry.last.steps)
        settings |= self.study.ranking.model_dump()
        found = RaceResult(
            student=entry.planned.name,
            reward=data.reward_name if data.reward else None,
            by=race.metric.kind,
            metric=FormedMetric(tuple(race.metric.needs), race.metric.higher_is_better),
            options=self.options,
            ending=race.ending or "budget",
            rows=self.rows,
            racers=tuple(self._racers(entry)),
            looks=tuple(race.looks),
            costs=tuple(self.ledger.costs),
            full=self.ledger.full,
            settings={name: plain(value) for name, value in settings.items()},
            warnings=tuple(entry.warnings),
            trust=Trust(self.kind.kind, self.kind.why, line_of(race.metric.kind, self.kind.kind)),
        )
        overtaken = entry.overtaken(found.choice[0].teacher)
        return replace(found, warnings=(*found.warnings, *overtaken))

    def _racers(self, entry: Entry) -> list[Racer]:
        """Return who is left, the leader first, and then those dropped, the last first."""
        sign = 1 if entry.race.metric.higher_is_better else -1
        order = sorted(
            entry.racers.values(),
            key=lambda one: (one.beaten_by is not None, -one.rows, -sign * one.value),
        )
        return [self._priced(one) for one in order]

    def _priced(self, one: Racer) -> Racer:
        """Return a teacher with what it costs and its licence."""
        account, entry = self.ledger.accounts[one.teacher], self.study.known.find(one.teacher)
        prices = [job.backend.prices[1] for job in self.source.jobs if job.name == one.teacher]
        return replace(
            one,
            tokens=account.tokens / account.responses if account.responses else None,
            price=next(iter(prices), None) or (entry.price_out if entry else None),
            licence=entry.licence if entry else None,
            free_to_train=entry is not None and entry.training == "free",
        )


def _kind(pipeline: Pipeline) -> FoundKind:
    """Return the kind of the data; of teachers that are still to be asked, what the study says."""
    source = pipeline.source
    table = None if source.jobs else source.gathered(None).table
    return kind_of(pipeline.study.ranking.kind, table)


def _metrics(pipeline: Pipeline) -> tuple[Metric, ...]:
    """Return the metric that orders, and reward beside CAR by default; the same for every student and reward.

    Raises:
        StudyError: it depends on who is compared, so that teachers that left would change it.
    """
    study, source = pipeline.study, pipeline.source
    references = _have_references(source)
    found: dict[str, Metric] = {}
    for student, reward in product(pipeline.students, reward_sources(study, references=references)):
        planned = for_student(study, pipeline.runtime, student, reward=reward)
        metric = ordering_metric(planned.metrics, study.by, kind=_kind(pipeline).kind)
        found[metric.kind] = metric
        if metric.kind == "car" and study.by is None:
            found |= {one.kind: one for one in planned.metrics if one.kind == "reward"}
        # What cannot be bet on is found before anybody is asked.
        Race(metric, (), 0, study.race)
        if not OF_ALL.isdisjoint(metric.needs):
            raise StudyError(
                f"{metric.kind} compares every teacher with all the others, so that it changes when one "
                "leaves the race. Race by another metric (--by car, reward, ...), or rank without a race."
            )
    return tuple(found.values())


def _have_references(source: StudySource) -> bool:
    if source.jobs:
        return bool(source.questions.references)
    return source.gathered(None).table.has_references


def _compared(results: list[RaceResult]) -> list[RaceResult]:
    """Return the races of one run, warned of where another reward gives the same student another teacher."""
    found = []
    for one in results:
        others = [
            f"{other.choice[0].teacher} under reward = {other.reward}"
            for other in results
            if other.student == one.student and other.choice[0].teacher != one.choice[0].teacher
        ]
        text = f"Who is chosen changes: {'; '.join(others)}."
        extra = (Warning("winner-changes", text),) if others else ()
        found.append(replace(one, warnings=(*one.warnings, *extra)))
    return found


class _Working:
    """A progress that shows only steps in which something is missing: a race has hundreds."""

    def __init__(self, shown: Progress) -> None:
        self._shown, self._begun = shown, False

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """Show the step where it has work."""
        self._begun = missing.responses > 0
        if self._begun:
            self._shown.begin(step, stored, missing)

    def advance(self, done: Amount) -> None:
        """Show what was done."""
        self._shown.advance(done)

    def end(self) -> None:
        """Show that a step with work has ended."""
        if self._begun:
            self._shown.end()

    def say(self, lines: Sequence[str]) -> None:
        """Show what was found."""
        self._shown.say(lines)
