"""AlpacaEval 2: 805 instructions against gpt4_1106_preview, judged by the probability of a letter.

Its home is the data set `tatsu-lab/alpaca_eval` (CC BY-NC 4.0); nothing of it is in the package.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from preceptor.benchmarks.alpaca_eval.calibration import BASELINE_FILE, DATA_SET, read_calibration
from preceptor.benchmarks.alpaca_eval.files import (
    annotated_preferences,
    annotation_rows,
    compact_preferences,
    decided_comparisons,
)
from preceptor.benchmarks.alpaca_eval.length_control import Calibration
from preceptor.benchmarks.alpaca_eval.score import BASELINE, Preferences, evaluate_alpaca_eval
from preceptor.benchmarks.answers import answers_in, only
from preceptor.benchmarks.base import Benchmark, Judged, Scored, Verdicts, first_places, judge_label
from preceptor.benchmarks.cached_chat import OnProgress
from preceptor.benchmarks.comparisons import Decided
from preceptor.benchmarks.pairwise import PairJudge
from preceptor.benchmarks.questions import Answers, QuestionSet, fetched
from preceptor.benchmarks.rows import Row, file_name, fits, listed, read_rows, text_of, write_rows
from preceptor.errors import DataError
from preceptor.store.store import Store

_OUTPUTS = ("instruction", "output")
_ANNOTATIONS = ("instruction", "output_1", "output_2", "generator_2", "preference")


@dataclass(frozen=True)
class AlpacaEval(Benchmark):
    """AlpacaEval 2 with any judge.

    `instructions` and `gamed` are local copies of what length control needs; by default both are fetched. See
    `read_calibration`.
    """

    name: ClassVar[str] = "alpaca_eval"
    title: ClassVar[str] = "AlpacaEval 2"
    measures: ClassVar[Mapping[str, str]] = {
        "LC": "length-controlled win rate",
        "WR": "win rate",
    }
    facts: ClassVar[tuple[str, ...]] = ("WR_standard_error",)
    published: ClassVar[bool] = True

    instructions: Path | None = None
    gamed: Path | None = None

    def questions(
        self,
        limit: int | None = None,
        *,
        baseline: Answers | None = None,
        answers: Sequence[Answers] = (),
    ) -> QuestionSet:
        """Return the instructions that the baseline answered; by default all 805 and their baseline."""
        if baseline is None:
            path = fetched(
                DATA_SET,
                BASELINE_FILE,
                instead="Give a local copy with --baseline-answers FILE.",
            )
            baseline = only(self.read_answers(listed(read_rows(path)), str(path)) or (), str(path))
        return QuestionSet.of({text: text for text in baseline.texts}, baseline).drawn(limit)

    def preflight(self) -> None:
        """Read what length control needs."""
        self._calibration()

    def _calibration(self) -> Calibration:
        return read_calibration(self.instructions, self.gamed)

    def judge(
        self,
        answers: Sequence[Answers],
        questions: QuestionSet,
        judge: PairJudge,
        store: Store,
        progress: OnProgress | None = None,
    ) -> Judged:
        """Return the verdicts; they are written down as annotations and read back by the usual reader.

        So nothing is scored that could not be handed on.
        """
        outcomes = self.outcomes(answers, questions, judge, store, progress)
        name, baseline = judge_label(judge), questions.baseline.model
        rows = annotation_rows(outcomes, baseline=baseline, judge=name)
        return Judged(
            benchmark=self.name,
            baseline=baseline,
            judge=judge.identity(),
            judge_name=name,
            verdicts=annotated_preferences(rows, "the judge's verdicts"),
            rows=rows,
            first_place=first_places(outcomes, answers),
        )

    def score(self, verdicts: Sequence[Verdicts], *, seed: int = 0) -> Scored:
        """Return LC and WR of each model; without LC, and with a warning, where there is no calibration.

        Raises:
            DataError: files that were given for length control cannot be read.
            StudyError: a model has no verdict, or an instruction is not among the benchmark's.
        """
        judged = [one for one in verdicts if isinstance(one, Preferences)]
        calibration, warnings = None, []
        others = {one.baseline for one in judged} - {None, BASELINE}
        if others:
            names = ", ".join(sorted(map(str, others)))
            warnings.append(
                f"No length control against {names}: it is calibrated for {BASELINE} alone."
            )
        if any(one.baseline in (None, BASELINE) for one in judged):
            try:
                calibration = self._calibration()
            except DataError as error:
                if self.instructions and self.gamed:
                    raise
                warnings.append(f"No length control: {error}")
        results = [
            evaluate_alpaca_eval(
                one, calibration if one.baseline in (None, BASELINE) else None, seed=seed
            )
            for one in judged
        ]
        return Scored(results, warnings)

    def read_answers(self, rows: Sequence[Row], path: str) -> list[Answers] | None:
        """Return model outputs (`instruction`, `output`, `generator`)."""
        if not fits(rows, _OUTPUTS) or "question_id" in rows[0]:
            return None
        return answers_in(
            rows,
            path,
            benchmark=self.name,
            known=lambda row, at: (text_of(row, "generator", at), text_of(row, "instruction", at)),
            text=lambda row: row.get("output"),
        )

    def read_baseline(self, rows: Sequence[Row], path: str) -> list[Answers] | None:
        """Return a baseline's model outputs, or those that annotations hold as `output_1`."""
        if not fits(rows, ("output_1",)):
            return self.read_answers(rows, path)
        names = {"instruction": "instruction", "output": "output_1", "generator": "generator_1"}
        shown = [{name: row.get(field) for name, field in names.items()} for row in rows]
        return self.read_answers(shown, path)

    def read(self, rows: Sequence[Row] | Row, path: str) -> Sequence[Verdicts] | None:
        """Return the verdicts of annotations, or of an object of models with compact preferences."""
        if isinstance(rows, Mapping):
            if all(isinstance(row, Mapping) and "pref" in row for row in rows.values()):
                return compact_preferences(rows, path)
            rows = [rows]
        return annotated_preferences(rows, path) if fits(rows, _ANNOTATIONS) else None

    def decided(self, rows: Sequence[Row], path: str) -> list[Decided]:
        """Return the annotations that have both answers and a preference."""
        return decided_comparisons(rows, path)

    def write(
        self, folder: Path, answers: Sequence[Answers], judged: Judged | None = None
    ) -> list[Path]:
        """Write `alpaca_eval/<model>/model_outputs.json` and `annotations.json`."""
        files: dict[Path, list[Row]] = {}
        for one in answers:
            files[Path(file_name(one.model), "model_outputs.json")] = [
                {"instruction": question, "output": text, "generator": one.model}
                for question, text in one.texts.items()
            ]
        for row in judged.rows if judged else ():
            path = Path(file_name(row["generator_2"]), "annotations.json")
            files.setdefault(path, []).append(row)
        return [write_rows(folder / self.name / path, rows) for path, rows in files.items()]
