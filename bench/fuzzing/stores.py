"""The room of damaged stores: damage is found, the rest is as it was, and asking again repairs it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from fuzzing import mutate
from fuzzing.campaign import Wrong
from preceptor.errors import StoreError
from preceptor.store.store import Identity, ResponsePartition, ScorePartition, Store
from preceptor.types import Generation, Score

_SHARDS, _ROWS = 4, 12
_SCORER = Identity.of({"scorer": "likelihood", "model": {"id": "student"}})
_TEACHER = Identity.of({"engine": "fake", "model": "teacher"})
_OTHER = Identity.of({"scorer": "likelihood", "model": {"id": "another"}})

Rows = dict[bytes, Any]


def _scores(seed: int) -> list[list[Score]]:
    rng = np.random.default_rng(seed)
    rows = [
        Score(
            rng.bytes(16),
            {
                "loss": rng.random(),
                "tokens": float(n),
                "token_nll": rng.random(3).astype("f4").tolist(),
            },
        )
        if n % 5
        else Score(rng.bytes(16), {}, "no score at all")
        for n in range(_SHARDS * _ROWS)
    ]
    return [rows[at::_SHARDS] for at in range(_SHARDS)]


def _answers() -> list[list[Generation]]:
    rng = np.random.default_rng(9)
    rows = [
        Generation(rng.bytes(16), n % 3, rng.bytes(40).hex(), "stop", n, 2 * n, n / 7)
        if n % 5
        else Generation(rng.bytes(16), 0, None, note="refused request")
        for n in range(_SHARDS * _ROWS)
    ]
    return [rows[at::_SHARDS] for at in range(_SHARDS)]


def scores_in(partition: ScorePartition) -> Rows:
    """Return everything that can be read of each stored key."""
    keys = partition.keys().tolist()
    columns = partition.columns(keys, ["loss", "tokens"])
    lists = partition.lists(keys, "token_nll")
    complete = set(partition.complete(["loss", "tokens"], listed="token_nll").tolist())
    found = {
        key: (
            float(loss),
            float(tokens),
            note,
            tuple(lists[key].tolist()) if key in lists else None,
        )
        for key, loss, tokens, note in zip(
            keys, columns["loss"], columns["tokens"], columns["note"], strict=True
        )
    }
    if complete != set(keys):
        raise Wrong(f"{len(complete)} rows are complete, {len(keys)} keys are stored")
    return {
        key: tuple(None if part != part else part for part in row) for key, row in found.items()
    }


def answers_in(partition: ResponsePartition) -> Rows:
    """Return every stored response or note."""
    found: Rows = {one.key: one for one in partition.each()}
    notes = partition.notes()
    if set(partition.keys().tolist()) != found.keys() | notes.keys():
        raise Wrong("keys are stored that have neither a response nor a note")
    partition.costs()
    return found | notes


class Stores:
    """A partition of scores or of responses under one damage, of files or of the folder."""

    count = 10_000

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole = folder / "whole"
        store = Store(self.whole)
        self.scores, self.answers = _scores(1), _answers()
        for batch, said in zip(self.scores, self.answers, strict=True):
            store.scores(_SCORER).append(batch)
            store.responses(_TEACHER).append(said)
        for batch in _scores(2):
            store.scores(_OTHER).append(batch)
        self.known_scores = scores_in(store.scores(_SCORER))
        self.known_answers = answers_in(store.responses(_TEACHER))

    def case(self, chance: Random, number: int) -> str:
        """Damage a copy, read it, repair it."""
        root = self.folder / "case"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.whole, root)
        of_scores = chance.random() < 0.6
        identity = _SCORER if of_scores else _TEACHER
        place = root / ("scores" if of_scores else "responses") / identity.digest
        damage: Damage = chance.choice(DAMAGES)
        running = Store(root) if chance.random() < 0.2 else None
        if running is not None:
            self._found(running, of_scores)
        harm = damage(place, chance)
        try:
            self._read(root, of_scores, harm, running)
        except StoreError as error:
            if running is None and harm is not None:
                raise Wrong(f"{damage.__name__}: {error}") from error
            if damage is future:  # as the message says
                (place / FUTURE).unlink()
            if damage is foreign_card:
                shutil.rmtree(place)
        else:
            if damage is future:
                raise Wrong("a shard of a newer version was read")
        self._repair(root, of_scores)
        return damage.__name__

    def _read(
        self, root: Path, of_scores: bool, harm: "Harm | None", running: Store | None
    ) -> None:
        """Check that what is read was stored, and that what is not is missing and told of."""
        store = running or Store(root)
        partition = store.scores(_SCORER) if of_scores else store.responses(_TEACHER)
        checked = partition.check()
        found = self._found(store, of_scores)
        known = self.known_scores if of_scores else self.known_answers
        if not found.items() <= known.items():
            strange = next(key for key in found if found[key] != known.get(key))
            raise Wrong(f"{strange.hex()}: read {found[strange]}, stored {known.get(strange)}")
        if harm is None:
            return
        if len(found) != len(known) - harm.gone * _ROWS:
            raise Wrong(f"{harm}, and {len(found)} of {len(known)} rows are read")
        if len(checked.unfit) != harm.unfit:
            raise Wrong(f"{harm}, and the check finds {checked}")
        list(Store(root).partitions())

    def _found(self, store: Store, of_scores: bool) -> Rows:
        return (
            scores_in(store.scores(_SCORER)) if of_scores else answers_in(store.responses(_TEACHER))
        )

    def _repair(self, root: Path, of_scores: bool) -> None:
        """Ask again for what is missing; then everything is there, as it was, also after a compaction."""
        store = Store(root)
        if of_scores:
            scores = store.scores(_SCORER)
            have = set(scores.complete(["loss", "tokens"], listed="token_nll").tolist())
            scores.append([row for batch in self.scores for row in batch if row.key not in have])
        else:
            answers = store.responses(_TEACHER)
            have = set(answers.keys().tolist())
            answers.append([row for batch in self.answers for row in batch if row.key not in have])
        known = self.known_scores if of_scores else self.known_answers
        for _ in range(2):
            if self._found(Store(root), of_scores) != known:
                raise Wrong("a repaired store is another")
            again = Store(root)
            (again.scores(_SCORER) if of_scores else again.responses(_TEACHER)).compact()
        card = (
            root
            / ("scores" if of_scores else "responses")
            / (_SCORER if of_scores else _TEACHER).digest
        )
        if not (card / "identity.json").is_file():
            raise Wrong("identity.json is not written again")


class Harm(NamedTuple):
    """How many shards' rows are gone, and how many files a check must find unfit."""

    gone: int
    unfit: int


Damage = Callable[[Path, Random], Harm | None]
"""Damages a partition's folder; returns what must be found, None where the whole must be refused."""

FUTURE = f"part-{'9' * 20}-{'0' * 32}.parquet"


def _some(place: Path, chance: Random) -> list[Path]:
    shards = sorted(place.glob("part-*.parquet"))
    return chance.sample(shards, chance.choice((1, 1, 1, 2, _SHARDS)))


def bytes_changed(place: Path, chance: Random) -> Harm:
    """Bytes of shards, as a disk, a copy or a crash changes them."""
    chosen = _some(place, chance)
    harmed = 0
    for shard in chosen:
        data = shard.read_bytes()
        new = mutate.broken(data, chance.choice(mutate.BREAKS), chance)
        shard.write_bytes(new)
        harmed += new != data
    return Harm(harmed, harmed)


def bits_flipped(place: Path, chance: Random) -> Harm:
    """One bit of one shard."""
    shard = chance.choice(sorted(place.glob("part-*.parquet")))
    shard.write_bytes(mutate.broken(shard.read_bytes(), "with a flipped bit", chance))
    return Harm(1, 1)


def deleted(place: Path, chance: Random) -> Harm:
    """Shards that are gone."""
    chosen = _some(place, chance)
    for shard in chosen:
        shard.unlink()
    return Harm(len(chosen), 0)


def swapped(place: Path, chance: Random) -> Harm:
    """Two shards under each other's name."""
    one, other = chance.sample(sorted(place.glob("part-*.parquet")), 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return Harm(2, 2)


def copied_in(place: Path, chance: Random) -> Harm:
    """Shards of another partition beside, or in the place of, one's own."""
    own = sorted(place.glob("part-*.parquet"))
    strangers = sorted((place.parents[1] / "scores" / _OTHER.digest).glob("part-*.parquet"))
    chosen = chance.sample(strangers, chance.randint(1, _SHARDS))
    for shard in chosen:
        shutil.copy(shard, place / shard.name)
    replaced = chance.random() < 0.5
    if replaced:
        chance.choice(own).write_bytes(chance.choice(strangers).read_bytes())
    return Harm(int(replaced), len(chosen) + replaced)


def doubled(place: Path, chance: Random) -> Harm:
    """A shard of one's own under a second name."""
    shard = chance.choice(sorted(place.glob("part-*.parquet")))
    parts = shard.name.split("-")
    parts[2] = f"{chance.randrange(16**32):032x}"
    shutil.copy(shard, shard.with_name("-".join(parts)))
    return Harm(0, 0)


def card_changed(place: Path, chance: Random) -> Harm:
    """No, or a damaged, identity.json."""
    card = place / "identity.json"
    if chance.random() < 0.4:
        card.unlink()
    else:
        card.write_bytes(
            chance.choice(
                (
                    b"",
                    b"{}",
                    b"[1]",
                    b'{"spec": 3}',
                    b"\xff\xfe",
                    b"[" * 9999,
                    card.read_bytes()[:40],
                )
            )
        )
    if chance.random() < 0.5:
        return bytes_changed(place, chance)
    return Harm(0, 0)


def foreign_card(place: Path, chance: Random) -> None:
    """The identity.json of another partition."""
    shutil.copy(place.parents[1] / "scores" / _OTHER.digest / "identity.json", place)


def future(place: Path, chance: Random) -> None:
    """A shard of a version to come."""
    table = pq.read_table(chance.choice(sorted(place.glob("part-*.parquet"))))
    version = str(chance.choice((2, 3, 99, "x", "9" * 400, -1))).encode()
    marks = {**(table.schema.metadata or {}), b"preceptor.format": version}
    pq.write_table(table.replace_schema_metadata(marks), place / FUTURE)


_STRANGE = (
    "tmp-x-1-2-3",
    "tmp-",
    "notes.txt",
    ".DS_Store",
    "part-",
    "part-1",
    "Part-1.parquet",
    "\u732b",
    "x.json",
    "claim-1",
    "claim-",
    "Claim",
)
_ODD = (
    "part-.parquet",
    "part-1.parquet",
    "part-x-y-z.parquet",
    "part-1-a-b-c.parquet",
    "part-1-2.parquet",
)


def strange_files(place: Path, chance: Random) -> Harm:
    """Files and folders that are no shards, and what killed writers leave."""
    for name in chance.sample(_STRANGE, 3):
        if chance.random() < 0.2:
            (place / name).mkdir()
        else:
            (place / name).write_bytes(mutate.damaged(b"some bytes of nobody", chance))
    return Harm(0, 0)


def odd_shards(place: Path, chance: Random) -> Harm:
    """What is named like a shard and is none."""
    path = place / chance.choice(_ODD)
    path.write_bytes(
        chance.choice((b"", b"PAR1", b"PAR1PAR1", mutate.damaged(b"PAR1" * 20, chance)))
    )
    return Harm(0, 1)


DAMAGES: tuple[Damage, ...] = (
    bytes_changed, bytes_changed, bytes_changed, bits_flipped, bits_flipped, bits_flipped, deleted, swapped,
    copied_in, doubled, card_changed, foreign_card, future, strange_files, odd_shards,
)  # fmt: skip
