"""The folder of what can be computed again."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder for what can be computed again: `PRECEPTOR_CACHE`, else the user's own.

    It need not exist yet.
    """
    chosen = os.environ.get("PRECEPTOR_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("preceptor"))


def is_own(path: Path) -> bool:
    """Whether nobody but this user can have written what lies here; also where nothing does."""
    try:
        status = path.stat()
    except OSError:
        return True
    if not hasattr(os, "geteuid"):
        return True
    shared = status.st_mode & 0o002 or (status.st_mode & 0o020 and status.st_gid != os.getegid())
    return status.st_uid == os.geteuid() and not shared
