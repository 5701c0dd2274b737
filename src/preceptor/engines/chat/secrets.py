"""The address and the key of a chat endpoint, and how both are kept out of messages, logs and answers."""

import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from preceptor.config.secrets import (
    REDACTED,
    hide,
    shown_address,
    spellings,
    without_keys,
    without_secrets,
)
from preceptor.errors import ModelError

_OPENAI = "api.openai.com"
_LEAST_SECRET = 4


@dataclass(frozen=True, repr=False)
class Secrets:
    """An endpoint's address and key, and all that must never be written down because of them."""

    url: str
    key: str | None
    hidden: tuple[str, ...]
    loopback: bool

    @classmethod
    def of(cls, url: str, api_key_env: str | None, *, allow_http: bool = False) -> "Secrets":
        """Return the secrets of an endpoint. `allow_http` lets the key go to another machine unencrypted.

        Raises:
            ModelError: the address is no http address, the key is missing where one is needed, its
                characters cannot stand in a header, or it would go out unencrypted.
        """
        parts = _split(url)
        loopback = _is_loopback(parts.hostname or "")
        if api_key_env is None and parts.hostname == _OPENAI:
            api_key_env = "OPENAI_API_KEY"
        key = os.environ.get(api_key_env, "").strip() if api_key_env else ""
        if not key and api_key_env and not loopback:
            raise ModelError(
                f"The endpoint {shown_address(url)} needs a key, and the environment variable "
                f"{api_key_env} is not set. Set it, or name another variable (api_key_env)."
            )
        if not (key.isascii() and key.isprintable()):
            raise ModelError(
                f"The value of {api_key_env} holds characters that no key has: expected printable "
                "ASCII. Set it again."
            )
        if key and parts.scheme == "http" and not (loopback or allow_http):
            raise ModelError(
                f"The key in {api_key_env} would go to {shown_address(url)} unencrypted, for anybody on the "
                "way to read. Use https, or a tunnel to 127.0.0.1, or allow it (allow_http, --allow-http, "
                "--judge-allow-http)."
            )
        hide(key)
        own = frozenset({f"Bearer {key}", key} if len(key) >= _LEAST_SECRET else ())
        return cls(url, key or None, spellings(own), loopback)

    def __repr__(self) -> str:
        return f"Secrets({shown_address(self.url)})"

    def headers(self) -> dict[str, str]:
        """Return the headers that carry the key; none without a key."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def address(self, path: str) -> str:
        """Return the address of an endpoint's function."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{path}"))

    def cut(self, text: str) -> str:
        """Return the text of a message without any secret, however JSON would spell it."""
        for secret in self.hidden:
            text = text.replace(secret, REDACTED)
        return without_secrets(text)

    def cut_answer(self, text: str) -> str:
        """Return the text of an answer without any key.

        Keys of local servers are often words such as EMPTY, which must not be torn out of answers.
        """
        return without_keys(text)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass  # an unreadable port or bracket
    raise ModelError(
        f"'{shown_address(url)}' is no endpoint: expected an address such as "
        "http://127.0.0.1:8080/v1."
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
