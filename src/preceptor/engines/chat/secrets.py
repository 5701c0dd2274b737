"""The address and the key of a chat endpoint, and how both are kept out of messages, logs and answers."""

import base64
import ipaddress
import json
import logging
import os
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from preceptor.config.runtime import REDACTED, without_secrets
from preceptor.errors import ModelError

logger = logging.getLogger(__name__)

_OPENAI = "api.openai.com"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
_LEAST_SECRET = 4
_LEAST_SECRET_IN_ANSWER = 12
"""Keys of local servers are often words such as EMPTY, which must not be torn out of answers."""


@dataclass(frozen=True, repr=False)
class Secrets:
    """An endpoint's address and key, and all that must never be written down because of them."""

    url: str
    key: str | None
    hidden: tuple[str, ...]
    loopback: bool

    @classmethod
    def of(cls, url: str, api_key_env: str | None) -> "Secrets":
        """Return the secrets of an endpoint.

        Raises:
            ModelError: the address is no http address, the key is missing where one is needed, or its
                characters cannot stand in a header.
        """
        parts = _split(url)
        loopback = _is_loopback(parts.hostname or "")
        if api_key_env is None and parts.hostname == _OPENAI:
            api_key_env = "OPENAI_API_KEY"
        if api_key_env is not None and not _VARIABLE.fullmatch(api_key_env):
            raise ModelError(
                "What was given as the name of an environment variable is none (letters, digits and _). "
                "Keys are never given on the command line or in files: put the key into a variable and "
                "give the variable's name."
            )
        key = os.environ.get(api_key_env, "").strip() if api_key_env else ""
        if not key and api_key_env and not loopback:
            raise ModelError(
                f"The endpoint {without_secrets(url)} needs a key, and the environment variable "
                f"{api_key_env} is not set. Set it, or name another variable (api_key_env)."
            )
        if not (key.isascii() and key.isprintable()):
            raise ModelError(
                f"The value of {api_key_env} holds characters that no key has: expected printable "
                "ASCII. Set it again."
            )
        if key and parts.scheme == "http" and not loopback:
            logger.warning("the key goes to %s unencrypted: use https", without_secrets(url))
        secrets = [f"Bearer {key}", key] if key else []
        return cls(url, key or None, _spellings(secrets + _secrets_in(parts)), loopback)

    def __repr__(self) -> str:
        return f"Secrets({without_secrets(self.url)})"

    def headers(self) -> dict[str, str]:
        """Return the headers that carry the key; none without a key."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def address(self, path: str) -> str:
        """Return the address of an endpoint's function; user and query of the base are kept."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{path}", fragment=""))

    def cut(self, text: str) -> str:
        """Return the text of a message without any secret, however JSON would spell it."""
        for secret in self.hidden:
            text = text.replace(secret, REDACTED)
        return text

    def cut_answer(self, text: str) -> str:
        """Return the text of an answer without any secret that is too long to be a word."""
        for secret in self.hidden:
            if len(secret) >= _LEAST_SECRET_IN_ANSWER:
                text = text.replace(secret, REDACTED)
        return text


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass  # an unreadable port or bracket
    raise ModelError(
        f"'{without_secrets(url)}' is no endpoint: expected an address such as "
        "http://127.0.0.1:8080/v1."
    )


def _secrets_in(parts: SplitResult) -> list[str]:
    """Return what must not be shown of an address: user, password, query values, as sent and as meant."""
    secrets = [value for _, value in parse_qsl(parts.query)]
    secrets += [pair.partition("=")[2] for pair in parts.query.split("&")]
    for word in (parts.username, parts.password):
        secrets += [word, unquote(word)] if word else []  # a token may stand in either place
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        encoded = base64.b64encode(pair.encode()).decode()
        secrets += [f"Basic {encoded}", encoded]
    return secrets


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _spellings(secrets: list[str]) -> tuple[str, ...]:
    """Return each secret as it is and as JSON may spell it, longest first."""
    long = {secret for secret in secrets if len(secret) >= _LEAST_SECRET}
    escaped = {json.dumps(secret)[1:-1] for secret in long}
    slashed = {secret.replace("/", "\\/") for secret in long | escaped}
    return tuple(sorted(long | escaped | slashed, key=len, reverse=True))
