"""Names of teachers that look alike and are not: nothing is merged, and nothing is left unsaid."""

import re
import unicodedata
from collections.abc import Sequence

from preceptor.ranking.table import printable
from preceptor.types import Warning

_LOOK_ALIKE = str.maketrans(
    # Cyrillic, then Greek, in the small form of what looks like a Latin letter in either case.
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u0501\u051b\u051d\u04bb\u04cf"
    "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "abekmhopctyxijsdqwhl" + "abezhikmnoptyx",
)
_SPACES = re.compile(r"[\s_-]+")


def names_alike(names: Sequence[str]) -> list[Warning]:
    """Return a warning for names that a reader takes for one another, and for what cannot be seen in one."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_as_seen(name), []).append(name)
    warnings = []
    for group in alike.values():
        listed = " and ".join(f"'{_spelled(name)}'" for name in group)
        if len(group) > 1:
            text = f"{listed} look alike and are {len(group)} teachers here: if they are one, spell it alike."
            warnings.append(Warning("names-alike", text, tuple(group)))
        elif group[0] != group[0].strip() or any(map(_is_hidden, group[0])):
            text = f"The name {listed} holds spaces at an end or signs that cannot be seen."
            warnings.append(Warning("names-alike", text, tuple(group)))
    return warnings


def _as_seen(name: str) -> str:
    """Return what remains of a name where case, width, hidden signs and look-alike letters are nothing."""
    shown = "".join(
        c for c in unicodedata.normalize("NFKC", name) if c.isspace() or not _is_hidden(c)
    )
    return _SPACES.sub(" ", shown.casefold().translate(_LOOK_ALIKE)).strip()


def _is_hidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cf", "Cc", "Co", "Cn")


def _spelled(name: str) -> str:
    """Return a name with escapes for what cannot be seen, or looks like something else."""

    def misleads(letter: str) -> bool:
        folded = letter.casefold()
        other = folded.translate(_LOOK_ALIKE) != folded
        return other or _is_hidden(letter) or unicodedata.combining(letter) > 0

    return "".join(f"\\u{ord(c):04x}" if misleads(c) else c for c in printable(name))
