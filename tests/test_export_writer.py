"""Data sets for training: what is written is what was chosen, and no string breaks out of the card."""

import copy
import json
import math
import re
import threading
import tracemalloc
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest

from preceptor.data.responses import ResponseSource
from preceptor.errors import DataError, StoreError
from preceptor.export.writer import (
    Card,
    Example,
    Pair,
    TeacherUse,
    push,
    write_examples,
    write_pairs,
)
from preceptor.store.files import temporary_name
from preceptor.types import Instruction, Message

ZOO = Path(__file__).parents[2] / "shared" / "data" / "zoo"
needs_zoo = pytest.mark.skipif(not ZOO.exists(), reason="needs ../shared/data/zoo, which is absent")

LAYOUTS = ("messages", "alpaca", "sharegpt")
FORMATS = ("jsonl", "parquet")
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_format = pytest.mark.parametrize("format", FORMATS)

PLAIN = Instruction.from_text("Name a colour.")
SYSTEM = Instruction((Message("system", "Be brief."), Message("user", "What is 2+2?")))
TURNS = Instruction(
    (
        Message("system", "Be brief."),
        Message("user", "Hello"),
        Message("assistant", "Hi!"),
        Message("user", "And 2+2?"),
    )
)
EXAMPLES = [
    Example(PLAIN, " Blue, “sky”\r\nblue.\n", "sky", 0, {"reward": 1.5, "loss": 0.25}),
    Example(PLAIN, "Red 🌹 \x00\u2028.", "sea/deep", 1, {"reward": float("nan")}),
    Example(SYSTEM, "4", "sky", 2, {"late": -3.0}),
]
PAIR = Pair(TURNS, "4", "5", "sky", "sea", {"chosen_reward": 2.0, "rejected_reward": None})
CARD = Card(
    title="Best of two",
    how_chosen="The response with the highest CAR for the student was taken.",
    student="small/base",
    teachers=[
        TeacherUse("sky", "owner/sky", "apache-2.0", 2, "temperature 0.8"),
        TeacherUse("sea/deep", "owner/sea", None, 1, "greedy"),
    ],
    settings={"beta": 3.0, "seed": 0},
    metrics=[{"teacher": "sky", "car": 0.51234, "loss": float("nan")}],
)


def write(folder, examples=EXAMPLES, *, layout="messages", format="jsonl", card=CARD, **more):
    return write_examples(examples, folder, layout=layout, format=format, card=card, **more)


def lines(written):
    return [json.loads(line) for line in written.data.read_text(encoding="utf-8").splitlines()]


def identities(responses):
    return [(r.instruction.id, r.text, r.teacher, r.sample) for r in responses]


def fenced(readme, language):
    return re.search(rf"^```{language}\n(.*?)\n```$", readme, re.S | re.M).group(1)


@every_format
@every_layout
def test_what_is_written_is_read_back_by_our_own_reader(tmp_path, layout, format):
    examples = [*EXAMPLES, Example(TURNS, "4", "sky")]
    written = write(tmp_path / "data", examples, layout=layout, format=format)
    source = ResponseSource.open([written.folder])
    assert source.files[0].layout == layout
    assert identities(source) == identities(examples)
    assert source.problems == ()


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path):
    living = tmp_path / temporary_name()
    killed = tmp_path / ("-".join(living.name.split("-")[:3]) + "-1-gone")
    for folder in (living, killed):
        folder.mkdir()
        (folder / "rows").write_text("half a row")
    written = write(tmp_path)
    assert written.data.exists() and living.exists() and not killed.exists()


@needs_zoo
@every_format
@every_layout
def test_real_responses_are_read_back_unchanged(tmp_path, layout, format):
    responses = [r for r in islice(ResponseSource.open([ZOO]), 2000) if (r.text or "").strip()]
    examples = [Example(r.instruction, r.text, r.teacher, r.sample) for r in responses]
    written = write(tmp_path / "data", examples, layout=layout, format=format)
    assert written.rows == len(responses) > 1000
    assert identities(ResponseSource.open([written.data])) == identities(responses)


@every_format
@every_layout
def test_datasets_loads_the_file_and_the_folder_alike(tmp_path, layout, format):
    import datasets

    written = write(
        tmp_path / "data", [*EXAMPLES, Example(TURNS, "4", "sky")], layout=layout, format=format
    )
    kind, cache = {"jsonl": "json"}.get(format, format), str(tmp_path / "cache")
    file = datasets.load_dataset(kind, data_files=str(written.data), split="train", cache_dir=cache)
    folder = datasets.load_dataset(str(written.folder), split="train", cache_dir=cache)
    assert file.column_names == folder.column_names == list(written.columns)
    assert file.to_list() == folder.to_list()
    assert file["teacher"] == ["sky", "sea/deep", "sky", "sky"]
    assert file["reward"] == [1.5, None, None, None]
    assert file["late"] == [None, None, -3.0, None]


def test_the_card_tells_loaders_the_type_of_a_column_that_begins_with_nulls(tmp_path):
    import datasets

    # The loader of JSON guesses types from its first 10 MiB, in which `loss` is always null.
    nulls = (Example(PLAIN, "x" * 5000, "sky", at, {"loss": None}) for at in range(2500))
    written = write(tmp_path / "data", [*nulls, Example(PLAIN, "x", "sky", 0, {"loss": 0.5})])
    rows = datasets.load_dataset(
        str(written.folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows[-1]["loss"] == 0.5


def test_rows_of_each_layout_have_the_documented_columns(tmp_path):
    example = Example(TURNS, "4", "sky", 3, {"car": 0.5})
    beside = {"teacher": "sky", "sample": 3, "car": 0.5}
    expected = {
        # https://huggingface.co/docs/trl/dataset_formats, "Language modeling", conversational
        "messages": {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi!"},
                {"role": "user", "content": "And 2+2?"},
                {"role": "assistant", "content": "4"},
            ]
        },
        # LLaMA-Factory, data/README.md, "Alpaca Format"
        "alpaca": {
            "instruction": "And 2+2?",
            "input": "",
            "output": "4",
            "system": "Be brief.",
            "history": [["Hello", "Hi!"]],
        },
        # LLaMA-Factory, data/README.md, "Sharegpt Format"
        "sharegpt": {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Hello"},
                {"from": "gpt", "value": "Hi!"},
                {"from": "human", "value": "And 2+2?"},
                {"from": "gpt", "value": "4"},
            ]
        },
    }
    for layout, columns in expected.items():
        assert lines(write(tmp_path / layout, [example], layout=layout)) == [columns | beside]


def test_alpaca_has_no_system_and_no_history_where_no_row_has_any(tmp_path):
    (row,) = lines(write(tmp_path / "data", EXAMPLES[:1], layout="alpaca"))
    assert list(row) == ["instruction", "input", "output", "teacher", "sample", "reward", "loss"]


def test_alpaca_counts_and_leaves_out_turns_that_do_not_alternate(tmp_path):
    twice = Instruction((Message("user", "One."), Message("user", "Two.")))
    written = write(tmp_path / "data", [Example(twice, "x", "sky"), *EXAMPLES], layout="alpaca")
    assert (written.rows, written.skipped) == (3, {"turns that do not alternate": 1})
    assert write(tmp_path / "other", [Example(twice, "x", "sky")]).rows == 1


@every_format
def test_trl_takes_messages_and_pairs_for_conversations(tmp_path, tokenizer, format):
    pytest.importorskip("trl")
    import datasets
    from trl.data_utils import apply_chat_template, is_conversational

    def load(written):
        cache = str(tmp_path / "cache")
        return datasets.load_dataset(str(written.folder), split="train", cache_dir=cache)[0]

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    row = load(write(tmp_path / "data", [Example(TURNS, "4", "sky")], format=format))
    assert is_conversational(row)
    text = apply_chat_template(row, tokenizer)["text"]
    assert text == "[system]Be brief.[user]Hello[assistant]Hi![user]And 2+2?[assistant]4"
    pair = load(write_pairs([PAIR], tmp_path / "pairs", format=format, card=CARD))
    assert is_conversational(pair)
    assert (pair["chosen_reward"], pair["rejected_reward"]) == (2.0, None)
    parts = apply_chat_template(pair, tokenizer)
    assert (parts["chosen"], parts["rejected"]) == ("4", "5")
    assert parts["prompt"].endswith("[user]And 2+2?[assistant]")


@every_layout
def test_the_training_code_of_the_card_makes_prompts_and_completions(tmp_path, layout):
    import datasets

    examples = [*EXAMPLES, Example(TURNS, "4", "sky")]
    written = write(tmp_path / "data", examples, layout=layout)
    code = fenced((written.folder / "README.md").read_text(encoding="utf-8"), "python")
    *code, trainer = code.replace("path/of/this/folder", str(written.folder)).splitlines()
    assert trainer == 'SFTTrainer("small/base", train_dataset=rows).train()'
    names = {"cache": str(tmp_path / "cache"), "load_dataset": datasets.load_dataset}
    kept = "\n".join(line for line in code if not line.startswith("from "))
    exec(kept.replace('split="train"', 'split="train", cache_dir=cache'), names)
    for row, example in zip(names["rows"], examples, strict=True):
        turns = [Message(turn["role"], turn["content"]) for turn in row["prompt"]]
        assert tuple(turns) == example.instruction.messages
        assert row["completion"] == [{"role": "assistant", "content": example.text}]


@every_format
def test_lone_surrogates_are_replaced_counted_and_told(tmp_path, format):
    bad = Example(
        Instruction.from_text("A \ud800?"), "\udfff B \udfff", "s\ud83dy", 0, {"loss": math.nan}
    )
    written = write(tmp_path / "data", [bad, EXAMPLES[0]], format=format)
    assert written.replaced_characters == 4
    first = next(iter(ResponseSource.open([written.folder])))
    assert (first.instruction.text, first.text) == ("A \ufffd?", "\ufffd B \ufffd")
    assert "replaced by U+FFFD: 4" in (written.folder / "README.md").read_text(encoding="utf-8")


def test_numbers_without_a_value_are_null_in_every_row(tmp_path):
    numbers = {"reward": float("inf"), "loss": None, "car": -0.5}
    rows = lines(write(tmp_path / "data", [EXAMPLES[2], Example(PLAIN, "x", "sky", 0, numbers)]))
    assert [list(row) for row in rows] == [list(rows[0])] * 2
    assert [rows[1][name] for name in ("reward", "loss", "car", "late")] == [None, None, -0.5, None]
    assert rows[0]["car"] is None


def test_blank_texts_are_never_written(tmp_path):
    blanks = [Example(PLAIN, text, "sky") for text in ("", " \n")]
    written = write(tmp_path / "data", [*blanks, EXAMPLES[0]])
    assert (written.rows, written.skipped, dict(written.taken["rows"])) == (
        1,
        {"empty response": 2},
        {"sky": 1},
    )
    pairs = [PAIR, replace(PAIR, rejected=" "), replace(PAIR, rejected=PAIR.chosen)]
    written = write_pairs(pairs, tmp_path / "pairs", format="jsonl", card=CARD)
    assert written.skipped == {"empty response": 1, "same text twice": 1}
    assert written.taken == {"chosen": {"sky": 1}, "rejected": {"sea": 1}}


def test_tokens_are_summed_only_where_every_row_has_them(tmp_path):
    rows = [Example(PLAIN, "x", "sky", at, {"tokens": at + 1}) for at in range(3)]
    assert write(tmp_path / "all", rows).tokens == 6
    assert write(tmp_path / "some", [*rows, EXAMPLES[0]]).tokens is None


@every_format
def test_memory_does_not_grow_with_the_number_of_examples(tmp_path, format):
    examples = (Example(PLAIN, f"{at}" * 500, "sky", at, {"reward": at}) for at in range(8_000))
    tracemalloc.start()
    try:
        written = write(tmp_path / "data", examples, format=format)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written.rows == 8_000  # 16 MB of text
    assert peak < 8e6


def test_nothing_to_write_is_an_error_that_leaves_nothing_behind(tmp_path):
    with pytest.raises(DataError, match=r"no rows \(1 empty response\)"):
        write(tmp_path / "a" / "b", [Example(PLAIN, " ", "sky")])
    with pytest.raises(DataError, match="no rows"):
        write_pairs([], tmp_path / "a" / "b", format="parquet", card=CARD)
    assert list(tmp_path.iterdir()) == []


@every_format
def test_an_interrupted_write_leaves_nothing_or_what_was_there(tmp_path, format):
    def interrupted():
        yield from EXAMPLES
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "new", interrupted(), format=format)
    assert not (tmp_path / "new").exists()
    written = write(tmp_path / "old", format=format)
    before = {path.name: path.read_bytes() for path in written.folder.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "old", interrupted(), format=format, overwrite=True)
    assert {path.name: path.read_bytes() for path in written.folder.iterdir()} == before


def test_a_folder_that_holds_something_is_replaced_only_when_asked(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes\.txt.*overwrite"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    write(tmp_path, overwrite=True)
    with pytest.raises(DataError, match=r"README\.md"):
        write(tmp_path, format="parquet")
    written = write(tmp_path, format="parquet", overwrite=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"notes.txt", *(path.name for path in written.files)}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_whose_replacement_broke_off_does_not_pass_for_whole(tmp_path):
    written = write(tmp_path / "data")
    _, readme, mark = written.files
    readme.unlink()
    (readme / "in the way").mkdir(parents=True)
    with pytest.raises(StoreError, match="Cannot write"):
        write(tmp_path / "data", EXAMPLES[:1], overwrite=True)
    assert not mark.exists()


def test_a_disk_that_refuses_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Cannot write"):
        write(tmp_path / "file" / "data")


def test_wrong_names_are_refused_with_the_nearest(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'sharegpt'"):
        write(tmp_path / "data", layout="shargpt")
    with pytest.raises(DataError, match="Did you mean 'parquet'"):
        write(tmp_path / "data", format="parket")
    with pytest.raises(DataError, match="A number is named 'teacher'"):
        write(tmp_path / "data", [Example(PLAIN, "x", "sky", 0, {"teacher": 1.0})])
    assert list(tmp_path.iterdir()) == []


class Hub(BaseHTTPRequestHandler):
    """The answers of the Hub that an upload of small files needs."""

    status, private = 200, True

    def do_GET(self):
        self.answer({"id": "me/data", "private": self.private, "tags": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers["Authorization"], body))
        answer = {"url": f"{self.server.address}/datasets/me/data", "errors": [], "warnings": []}
        if "preupload" in self.path:
            files = [{**file, "uploadMode": "regular"} for file in json.loads(body)["files"]]
            answer = {"files": [{**file, "shouldIgnore": False} for file in files]}
        if "/commit/" in self.path:
            answer = {"commitUrl": f"{self.server.address}/datasets/me/data/commit/1"}
            answer |= {"commitOid": "1"}
        self.answer(answer)

    def answer(self, answer):
        raw = json.dumps({"error": "no rights"} if self.status != 200 else answer).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ThisHub", (Hub,), {}))
    server.requests, server.address = [], f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_push_sends_the_files_of_the_data_set_alone(tmp_path, hub):
    (tmp_path / "secret.env").write_text("KEY=1")
    write(tmp_path, overwrite=True)
    assert push(tmp_path, "me/data") == f"{hub.address}/datasets/me/data"
    (created,) = [json.loads(body) for path, _, body in hub.requests if "create" in path]
    assert (created["type"], created["name"]) == ("dataset", "data")
    assert created.get("private", created.get("visibility")) in (True, "private")
    (commit,) = [body for path, _, body in hub.requests if "/commit/" in path]
    sent = [json.loads(line) for line in commit.splitlines()]
    names = {part["value"]["path"] for part in sent if part["key"] == "file"}
    assert names == {"README.md", "preceptor.json", "train.jsonl"}
    assert {token for _, token, _ in hub.requests} == {"Bearer hf_secret"}


def test_push_does_not_publish_what_is_to_stay_private(tmp_path, hub):
    write(tmp_path / "data")
    hub.RequestHandlerClass.private = False
    with pytest.raises(DataError, match=r"'me/data' is public.*private"):
        push(tmp_path / "data", "me/data")
    assert not [path for path, _, _ in hub.requests if "/commit/" in path]
    push(tmp_path / "data", "me/data", private=False)
    assert [path for path, _, _ in hub.requests if "/commit/" in path]


@pytest.mark.parametrize("status", [401, 403])
def test_push_without_rights_says_what_the_token_needs(tmp_path, hub, status):
    write(tmp_path / "data")
    hub.RequestHandlerClass.status = status
    with pytest.raises(DataError, match=rf"{status}.*HF_TOKEN") as error:
        push(tmp_path / "data", "me/data")
    assert "hf_secret" not in str(error.value)


def test_push_without_network_token_or_data_says_so(tmp_path, hub, monkeypatch):
    from huggingface_hub import constants

    with pytest.raises(DataError, match=r"holds no preceptor\.json"):
        push(tmp_path, "me/data")
    write(tmp_path / "data")
    with pytest.raises(DataError, match="is no name of a data set"):
        push(tmp_path / "data", "me/too/many")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="cannot be reached"):
        push(tmp_path / "data", "me/data")
    monkeypatch.setenv("HF_TOKEN", " ")
    with pytest.raises(DataError, match="HF_TOKEN is not set"):
        push(tmp_path / "data", "me/data")
