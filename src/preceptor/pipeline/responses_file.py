"""Write the responses of the teachers that a study asks as a file that `rank` reads."""

import json
from pathlib import Path

from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.errors import DataError
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.sources import StudySource
from preceptor.pipeline.work import Progress
from preceptor.store.files import explained, replacing
from preceptor.types import Response


def generate_to_file(study: Study, runtime: Runtime, path: Path, progress: Progress) -> int:
    """Ask the study's teachers, write their responses to `path`, and return how many.

    Raises:
        PreceptorError: a teacher cannot be asked, or the file cannot be written.
    """
    if not path.parent.is_dir():
        raise DataError(f"There is no folder {path.parent} to write {path.name} to: make it first.")
    pipeline = Pipeline(study, runtime, progress)
    pipeline.generate()
    return write_responses(pipeline.source, path)


def write_responses(source: StudySource, path: Path) -> int:
    """Write the responses of the teachers that are asked as JSON Lines; return how many.

    A row has `prompt` (a text, or messages), `completion`, `model` (the teacher's label), `sample`, and
    `finish_reason`, `reference` and `category` where there are any. The file appears whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    count = 0
    with explained("write", path), replacing(path) as temporary, temporary.open("xb") as file:
        for response in source:
            if response.text is None:
                continue
            line = json.dumps(_row(response), ensure_ascii=False, default=str)
            file.write(line.encode("utf-8", "replace") + b"\n")
            count += 1
    return count


def _row(response: Response) -> dict[str, object]:
    messages = response.instruction.messages
    alone = len(messages) == 1 and messages[0].role == "user"
    row = {
        "prompt": messages[0].content if alone else [m.as_dict() for m in messages],
        "completion": response.text,
        "model": response.teacher,
        "sample": response.sample,
        "finish_reason": response.finish_reason,
        "reference": response.reference,
        "category": response.category,
    }
    return {name: value for name, value in row.items() if value is not None}
