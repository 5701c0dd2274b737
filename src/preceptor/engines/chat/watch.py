"""Notice, from the outcomes of requests, that an endpoint is down or is asked wrongly.

A note is final, so only what is one request's own fault may become one. Trouble that may pass
leaves the request to be asked again; trouble of all requests ends the run, with what was answered kept.
"""

from collections.abc import Callable

from preceptor.engines.base import Completion, Failure
from preceptor.errors import ModelError

LOST_IN_A_ROW = 5
"""So many requests in a row without an answer mean that the endpoint is down."""


class Watch:
    """Follows one model's outcomes.

    `who` begins sentences ("The judge 'x'"), `where` says where it is asked, and `probe` asks it something
    short in the same way.
    """

    def __init__(self, who: str, where: object, probe: Callable[[], Completion | Failure]) -> None:
        self._who, self._where, self._probe = who, where, probe
        self._answered = 0
        self._lost_in_a_row = 0
        self._settings_work = False

    def works(self) -> None:
        """What was asked to try the endpoint was answered."""
        self._settings_work = True

    def answered(self) -> None:
        """An answer came."""
        self._settings_work = True
        self._answered += 1
        self._lost_in_a_row = 0

    def note(self, failure: Failure) -> str | None:
        """Return why this request will never have an answer; None where it is to be asked again.

        Raises:
            ModelError: the endpoint is down, or refuses key, address, model or settings.
        """
        if failure.of_request:
            self._lost_in_a_row = 0
            self._require_working_settings()
            return f"{failure.kind}: {failure.detail}"
        self._count_lost(failure)
        return None

    def _require_working_settings(self) -> None:
        """Make sure, once, that it is the row that is refused and not the way of asking.

        Else every row would get a note, which is final, because of a misspelled model.
        """
        if self._settings_work:
            return
        answer = self._probe()
        if isinstance(answer, Failure):
            raise ModelError(
                f"{self._who} does not answer even a short request ({answer.kind}: {answer.detail}). "
                "Check the model's name and its options."
            )
        self._settings_work = True

    def _count_lost(self, failure: Failure) -> None:
        self._lost_in_a_row += 1
        seen = f"{failure.kind}: {failure.detail}"
        if failure.of_settings and not self._settings_work:
            raise ModelError(
                f"{self._who} cannot be asked at {self._where!r} ({seen}). Check the address, the model's "
                "name, the key and the options."
            )
        if self._lost_in_a_row >= LOST_IN_A_ROW:
            raise ModelError(
                f"{self._who} has not answered {self._lost_in_a_row} requests in a row at "
                f"{self._where!r}; the last: {seen}. {self._answered} answers of this run are done and "
                "kept: run again, when it answers, to ask for the rest only."
            )
