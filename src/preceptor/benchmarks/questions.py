"""Questions and the answers to them: what models are asked, and what they and the baseline answered.

Questions come with the baseline's answers, because only what the baseline answered can be asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from preceptor.errors import DataError, StudyError
from preceptor.store.activity import quieten_downloads
from preceptor.types import Instruction


@dataclass(frozen=True)
class Answers:
    """One model's answers to one benchmark, by the question's id.

    `questions` holds the questions' texts where a file has them, by the same id. A row without a text is no
    answer.
    """

    benchmark: str
    model: str
    texts: Mapping[str, str]
    questions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class QuestionSet:
    """Questions by id, as models are asked them, with the baseline's answers.

    `baseline` is empty where a model that has still to answer is to be the baseline; see `against`.
    """

    benchmark: str
    instructions: Mapping[str, Instruction]
    baseline: Answers

    @classmethod
    def of(cls, texts: Mapping[str, str], baseline: Answers) -> "QuestionSet":
        """Return the set of these texts by id, each a single user turn."""
        asked = {name: Instruction.from_text(text) for name, text in texts.items()}
        return cls(baseline.benchmark, asked, baseline)

    @property
    def texts(self) -> dict[str, str]:
        """The questions by id, as a judge is shown them."""
        return {name: shown(asked) for name, asked in self.instructions.items()}

    def drawn(self, limit: int | None) -> "QuestionSet":
        """Return the first `limit` questions in an order given by their content; all where it is None.

        A larger limit adds to a smaller one, whatever the order of the files.

        Raises:
            StudyError: the limit is below 1.
        """
        if limit is None:
            return self
        if limit < 1:
            raise StudyError(f"The limit is {limit}: expected at least 1 question.")
        texts = self.texts
        order = sorted(texts, key=lambda name: _hash(texts[name]))
        return replace(self, instructions={name: self.instructions[name] for name in order[:limit]})

    def against(self, baseline: Answers) -> "QuestionSet":
        """Return the questions with their own baseline, or where they have none, with these answers.

        Raises:
            DataError: the baseline answered nothing.
        """
        if self.baseline.texts:
            return self
        answered = {name: one for name, one in self.instructions.items() if name in baseline.texts}
        if not answered:
            raise DataError(
                f"'{baseline.model}' answered none of the {len(self.instructions)} questions, so there is "
                "no baseline. Shorten the questions, or name another baseline."
            )
        return QuestionSet(self.benchmark, answered, baseline)

    def without_baseline(self) -> "QuestionSet":
        """Return the questions for a baseline that has still to answer them."""
        return replace(self, baseline=Answers(self.benchmark, "", {}))

    def answers_of(self, model: str, texts: Mapping[bytes, str]) -> Answers:
        """Return a model's answers, given by the instructions' `given_id`; one without is left out."""
        asked = self.instructions.items()
        found = {name: texts[one.given_id] for name, one in asked if one.given_id in texts}
        return Answers(self.benchmark, model, found)


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def shown(instruction: Instruction) -> str:
    """Return a conversation as a judge is shown it: one turn plain, several under their roles."""
    if len(instruction.messages) == 1:
        return instruction.text
    return "\n\n".join(f"[{turn.role}]\n{turn.text}" for turn in instruction.messages)


def fetched(home: str, name: str, *, instead: str) -> Path:
    """Return the local copy of a data set's file, fetched at first use.

    Raises:
        DataError: it cannot be fetched; `instead` says what makes it unnecessary.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    quieten_downloads()
    try:
        return Path(hf_hub_download(home, name, repo_type="dataset"))
    except (HfHubHTTPError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"Cannot fetch '{name}' of the data set '{home}': {reason} {instead}"
        ) from error
