"""What must never be written down, and the one function that removes it from whatever is.

Keys stand in environment variables alone. Whatever is printed or written for people passes `without_secrets`:
standard output and error with their logs and tracebacks, reports, tables, cards, and what servers say.
"""

import base64
import html
import json
import os
import re
from functools import lru_cache
from urllib.parse import quote, quote_plus, urlsplit, urlunsplit

REDACTED = "[redacted]"
"""Stands for what must not be shown."""

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
"""What can be the name of an environment variable."""

_OF_SECRETS = re.compile(
    r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_?[0-9]+)?$", re.IGNORECASE
)
_USER = re.compile(
    # A password may hold a slash, and paths may have lost one of the two; a port is none.
    r"(?<=[a-z0-9]{2}:/)(/?)(?:[^\s/:@'\"<>]*:(?![0-9]+[/?#])[^\s'\"<>]*|[^\s/?#'\"<>]*)@"
)
_QUERY = re.compile(
    r"([?&](?:amp;)?(?:[\w.-]*(?:key|token|secret|passw(?:or)?d|signature|credential|auth)|sig|pwd)=)"
    r"[^&\s#'\"<>]+",
    re.IGNORECASE,
)
_LONG, _SHORT = 12, 8
_used: set[str] = set()


def hide(secret: str) -> None:
    """Have a key removed from now on, whatever its variable is called; short words never are."""
    _used.add(secret)


def without_secrets(text: str) -> str:
    """Return the text without keys, and without users, passwords and keys in addresses.

    Keys are the values of environment variables named like one (`..._KEY`, `..._TOKEN`) and those that
    endpoints were given; they are found as they are, and as JSON, HTML, addresses and base64 spell them.
    """
    text = without_keys(text)
    if ":/" in text:
        text = _USER.sub(rf"\1{REDACTED}@", text)
    return _QUERY.sub(rf"\1{REDACTED}", text) if "=" in text else text


def without_keys(text: str) -> str:
    """Return the text without keys; addresses stay as they are. For what a model answered."""
    named = {value for name, value in os.environ.items() if _OF_SECRETS.search(name)}
    for spelled in spellings(frozenset(filter(_tells, named | _used))):
        text = text.replace(spelled, REDACTED)
    return text


def shown_address(url: str) -> str:
    """Return the address without user, password, query and fragment, fit for messages."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(unreadable address)"
    hidden = "" if parts.netloc == host and not parts.query else f" ({REDACTED})"
    return urlunsplit((parts.scheme, host, parts.path, "", "")) + hidden


def looks_like_a_key(name: str) -> bool:
    """Tell whether what should be a variable's name is rather a key: long, with small letters and digits."""
    return len(name) >= 20 and bool(re.search("[a-z]", name)) and bool(re.search("[0-9]", name))


@lru_cache(maxsize=8)
def spellings(secrets: frozenset[str]) -> tuple[str, ...]:
    """Return each secret as it is and as JSON, HTML, addresses and base64 may spell it, longest first."""
    found = set(secrets)
    for secret in secrets:
        escaped = json.dumps(secret)[1:-1]
        found |= {escaped, secret.replace("/", "\\/"), escaped.replace("/", "\\/")}
        found |= {html.escape(secret), quote(secret), quote(secret, safe=""), quote_plus(secret)}
        found |= _in_base64(secret.encode())
    return tuple(sorted(found, key=len, reverse=True))


def _in_base64(secret: bytes) -> set[str]:
    """Return what base64 makes of the secret alone, and of its inside wherever it lies in a longer text."""
    found = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found.add(encode(secret).decode().rstrip("="))
        for before in range(3):  # signs that other bytes have a part in are left out
            whole = encode(bytes(before) + secret).decode()
            found.add(whole[before and before + 1 : (before + len(secret)) * 8 // 6])
    return {one for one in found if len(one) >= _SHORT}


def _tells(value: str) -> bool:
    """Whether a value is a key rather than a word, a path or a switch."""
    mixed = bool(re.search("[0-9]", value)) and bool(re.search("[A-Za-z]", value))
    return len(value) >= (_SHORT if mixed else _LONG) and not os.path.exists(value)
