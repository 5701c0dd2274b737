"""The line of the system, from a study to its rankings: generate, load, plan, score, rank.

The command line, scripts, reports, exports and validation all go through here. Every step asks the store
first, so the line is the same whether nothing was done before, a run was killed, or all is there.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product

from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.config.study import Study
from preceptor.errors import PreceptorError
from preceptor.pipeline.cluster.executor import executor_of
from preceptor.pipeline.columns import ColumnMeasures
from preceptor.pipeline.load import LoadedData, Loader
from preceptor.pipeline.outcome import Outcome, compared, completed, settings_of
from preceptor.pipeline.plan import StudentPlan, every_scorer, for_student, reward_sources
from preceptor.pipeline.score import Step, Stored, carry_out, step_of
from preceptor.pipeline.sources import ALL, Scope, StudySource, require_student, source_of
from preceptor.pipeline.trust import options_for, with_trust
from preceptor.pipeline.work import Executor, Progress, Silent, free, preflight, run_all
from preceptor.ranking.rank import rank
from preceptor.ranking.result import Ranking


class Pipeline:
    """A study on its way to rankings; `execute`, the runtime's own by default, runs work that is missing."""

    def __init__(
        self,
        study: Study,
        runtime: Runtime,
        progress: Progress | None = None,
        execute: Executor | None = None,
    ) -> None:
        self.study, self.runtime = study, runtime.settled()
        self.progress, self.execute = progress or Silent(), execute or executor_of(self.runtime)
        self.frees = True  # a teacher after its use, which is else left to `execute`

    def of(self, study: Study) -> "Pipeline":
        """Return the pipeline of another study over the same source."""
        other = Pipeline(study, self.runtime, self.progress, self.execute)
        other.__dict__["source"] = self.source
        return other

    @cached_property
    def source(self) -> StudySource:
        """Where the responses come from: files are recognised, teachers found, and nobody is asked."""
        return source_of(self.study, self.runtime)

    def generate(self, scope: Scope = ALL) -> None:
        """Get from the teachers in scope the responses that the store lacks, a teacher at a time.

        PreceptorError where a model cannot be asked, or one that later steps need is not found; what was
        answered before is stored. A growing scope pays only for what is new.
        """
        jobs = self.source.within(scope).jobs
        lacking = [job for job in jobs if job.lacking()]
        # A misspelt student must be found before an hour of generation, not after it.
        if lacking:
            references = bool(self.source.questions.references)
            for scorer in every_scorer(self.study, self.runtime, references=references):
                scorer.preflight()
        preflight(lacking)
        run_all(jobs, self.execute, self.progress, frees=self.frees)

    def load(self, scope: Scope = ALL, *, spend: bool = True) -> list[LoadedData]:
        """Return the data for each source of rewards; without `spend`, of what the store has alone.

        Raises:
            DataError: the data cannot be read.
            StudyError: no student; too few common instructions; or a metric needs what nothing gives.
            ModelError: a model is not found.
        """
        require_student(self.study, self.source)
        if spend:
            self.runtime.require_whole()
            self.generate(scope)
        source = self.source.within(scope)
        loader = Loader(self.study, self.runtime, source, scope, self.progress, self.execute, spend)
        references = not self.study.reward and loader.plain.table.has_references
        every_scorer(self.study, self.runtime, references=references)
        return loader.data(reward_sources(self.study, references=references))

    @property
    def students(self) -> Sequence[Student | None]:
        """The students to rank for; None is any, by reward and length alone."""
        return self.study.students or (None,)

    def plan(self, data: LoadedData, student: Student | None) -> tuple[StudentPlan, list[Step]]:
        """Return what ranking these data for a student takes, as steps over the store."""
        planned = for_student(self.study, self.runtime, student, reward=data.reward)
        at = (self.runtime, data.source, data.selection)
        return planned, [step_of(scorer, *at) for scorer in planned.scorers]

    def score(self, steps: Sequence[Step]) -> Iterator[Stored]:
        """Yield the columns of each step, once what it lacks is computed and stored."""
        # One step's at a time, because each takes as much memory as the measures made of them.
        for place, step in enumerate(steps):
            try:
                found = carry_out(step, self.progress, self.execute)
            finally:
                free(step, steps[place + 1 :])
            yield found
            del found

    def rank(self, data: LoadedData, planned: StudentPlan, steps: Sequence[Step]) -> Outcome:
        """Return the ranking of these data for one student, with where it comes from."""
        measures = ColumnMeasures(data.selection, self.study, planned.kinds)
        ranking = rank(
            measures.measurements([step.scorer for step in steps], self.score(steps)),
            student=planned.name,
            metrics=planned.metrics,
            by=self.study.by,
            settings=settings_of(data, self.study, planned, steps),
            options=options_for(self.study, data.selection.table),
        )
        at = (self.study, self.runtime, self.progress, self.execute)
        ranking = with_trust(completed(ranking, data, *at), measures.warnings(), data, *at[:2])
        return Outcome(ranking, data, self.study, planned, steps)

    def outcomes(self, data: Sequence[LoadedData] | None = None) -> Iterator[Outcome]:
        """Yield an outcome for each student and source of rewards, as each is done.

        Endpoints and keys are looked at before the first model is loaded.

        Raises:
            PreceptorError: one cannot be ranked; those yielded before stand.
        """
        pairs = product(self.students, self.load() if data is None else data)
        planned = [(one, *self.plan(one, student)) for student, one in pairs]
        preflight(step for *_, steps in planned for step in steps)
        # Not a loop, which would hold on to one outcome while the next is computed.
        return (self.rank(*one) for one in planned)

    def rankings(self) -> list[Ranking]:
        """Return all rankings; an error has those that were finished before it as `finished`."""
        found: list[Outcome] = []
        try:
            for outcome in self.outcomes():
                found.append(outcome)
        except PreceptorError as error:
            error.finished = tuple(one.ranking for one in compared(found))
            raise
        return [one.ranking for one in compared(found)]
