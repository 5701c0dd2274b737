"""Without what only Unix has, every module is imported and stored rewards are ranked.

What Windows lacks is taken away in a process of its own; on Windows itself nothing is left to take.
"""

import json
import subprocess
import sys
from pathlib import Path

from small_study import write_teachers

BARE = """
import os, pkgutil, signal, sys
from importlib import import_module

UNIX = ("fcntl", "grp", "pwd", "resource", "termios")
for name in UNIX:
    sys.modules[name] = None
for name in ("fork", "geteuid", "getegid", "getpgid", "killpg", "sched_getaffinity", "sysconf"):
    os.__dict__.pop(name, None)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGALRM", "SIGPIPE", "setitimer", "alarm", "pthread_kill"):
    signal.__dict__.pop(name, None)

import preceptor
for module in pkgutil.walk_packages(preceptor.__path__, "preceptor."):
    if not module.name.endswith("__main__"):
        try:
            import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name != "triton":  # of CUDA devices alone, and not everywhere
                raise

from preceptor.cli.app import main
sys.argv = ["preceptor", *WORDS]
main()
"""


def test_every_module_is_imported_and_stored_rewards_are_ranked_without_what_only_unix_has(
    tmp_path: Path,
):
    files = [str(path) for path in write_teachers(tmp_path)]
    words = ["rank", *files, "--no-student", "--reward-column", "reward", "--json", "ranking.json"]
    done = subprocess.run(
        [sys.executable, "-c", BARE.replace("WORDS", repr(words))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (ranking,) = json.loads((tmp_path / "ranking.json").read_text(encoding="utf-8"))
    assert {one["teacher"] for one in ranking["teachers"]} == {"alpha", "beta"}
