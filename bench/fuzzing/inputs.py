"""The room of what is read from files: responses, instructions, studies, catalogues, verdicts, outcomes."""

from pathlib import Path
from random import Random

from fuzzing import mutate, tables
from fuzzing.bombs import Bombs
from fuzzing.responses import (
    check_file,
    expectations,
    intact,
    made,
    of_csv,
    original,
    packed,
    put_values,
    unpacked,
    written,
)

_ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


class Inputs:
    """Files in every format and layout, with values, bytes, columns, names or sizes that are hostile."""

    count = 10_000

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bombs = Bombs(folder / "bombs")

    def case(self, chance: Random, number: int) -> str:
        """Make one file and read it."""
        folder = self.folder / "case"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        if chance.random() < 0.005:
            return self.bombs.case(chance)
        if chance.random() < 0.25:
            return tables.case(folder, chance)
        return getattr(
            self, chance.choice(("values", "values", "bytes", "bytes", "encoding", "odd_name"))
        )(folder, chance)

    def values(self, folder: Path, chance: Random) -> str:
        """A hostile value in a row or two."""
        file = made(chance)
        put_values(file, chance)
        data = written(file, chance)
        path = folder / f"few{file.ending}"
        path.write_bytes(packed(data, file.ending))
        if file.kind == "json" and (b"[" * 300 in data or b'{"a":' * 300 in data):
            file.may_be_refused = True  # a document that is nested too deeply is refused whole
        if file.kind in ("csv", "tsv"):
            wanted = [of_csv(file, row, "few") for row in file.rows]
        else:
            wanted = expectations(file, data, "few")
        return check_file(path, file, wanted, chance)

    def bytes(self, folder: Path, chance: Random) -> str:
        """Damaged bytes, before or after packing."""
        file = made(chance)
        data = written(file, chance)
        inside = chance.random() < 0.7
        changed = mutate.damaged(data, chance) if inside else data
        whole = packed(changed, file.ending)
        if not inside:
            whole = mutate.damaged(whole, chance)
        path = folder / f"few{file.ending}"
        path.write_bytes(whole)
        found = unpacked(whole, file.ending)
        wanted = None
        if (
            found is None
            or b"reward" not in found
            or file.kind in ("csv", "tsv", "parquet")
            or 0 in found[:4]
            or found[0] > 0xF0
        ):
            file.may_be_refused = True
        if found is not None and file.kind in ("csv", "tsv"):
            wanted = intact(file, data, found)
        elif found is not None and 0 not in found[:4] and found[0] < 0xF0:
            wanted = expectations(file, found, "few")
        return check_file(path, file, wanted, chance)

    def encoding(self, folder: Path, chance: Random) -> str:
        """A file in another encoding, which must be read as it is."""
        file = made(chance)
        while file.kind == "parquet":
            file = made(chance)
        written(file, chance)
        path = folder / f"few{file.ending}"
        name = chance.choice(_ENCODINGS)
        path.write_bytes(packed(file.text.encode(name), file.ending))
        wanted = [original(file, place) for place in range(len(file.rows))]
        return check_file(path, file, wanted, chance)

    def odd_name(self, folder: Path, chance: Random) -> str:
        """A file with a name that is hard to say, or something that is no file."""
        file = made(chance)
        name = chance.choice(
            (b"caf\xe9", b"new\nline", b" ", b"-rf", b"a" * 200, b"\xe2\x80\xae", b"%s", b"[a]")
        )
        path = folder / (name + file.ending.encode()).decode("utf-8", "surrogateescape")
        path.write_bytes(packed(written(file, chance), file.ending))
        wanted = [original(file, place) for place in range(len(file.rows))]
        return check_file(path, file, wanted, chance)
