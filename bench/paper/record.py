"""Write the record of the metrics anew, after a metric or a study has changed: no arguments.

`preceptor studies --check` and a test hold the file to what this computes.
"""

from pathlib import Path

from preceptor import studies
from preceptor.studies.record import computed, text_of

TARGET = Path(studies.__file__).with_name("record.csv")

if __name__ == "__main__":
    TARGET.write_text(text_of(computed()), encoding="utf-8")
    print(f"wrote {TARGET.name}")
