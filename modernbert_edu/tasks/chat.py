"""One request to a server that talks like OpenAI's: messages -> what the model says.

The standard library's HTTP client and nothing else. huggingface_hub's InferenceClient refuses every address while
HF_HUB_OFFLINE is set, one on this machine too, and sends the user's Hub token to any server that no other key is given
for.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request

from ..errors import InputError

KEY = "OPENAI_API_KEY"
LONGEST_ANSWER = 16 * 2**20  # bytes that are read of what a server sends


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key is for the server that was named, not for whatever it points to."""

    def redirect_request(self, *arguments):
        return None


def completions_url(endpoint: str) -> str:
    """`http://localhost:8000/v1` -> `http://localhost:8000/v1/chat/completions`. Raises `InputError` for no URL."""
    try:
        parts = urllib.parse.urlsplit(endpoint)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, a broken IPv6 address
        whole = False
    if not whole or not (endpoint.isascii() and endpoint.isprintable()) or " " in endpoint:
        raise InputError(f"the endpoint {endpoint!r} is no URL; give one like http://localhost:8000/v1")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return urllib.parse.urlunsplit(parts._replace(path=path + "/chat/completions", fragment=""))


def chat(endpoint: str, messages: list[dict[str, str]], *, model: str | None = None, timeout: float = 120.0) -> str:
    """What the server's model answers. The key is read from the environment variable OPENAI_API_KEY; none is fine.

    `timeout` seconds may pass without a byte. A server on this machine is asked directly, whatever proxy is set.
    Raises `InputError`, one line, for all that goes wrong: no connection, a refused key, an answer of another form.
    """
    url, key = completions_url(endpoint), os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{KEY} holds characters that no key has; set it again")
    payload = {"messages": messages} | ({} if model is None else {"model": model})
    headers = {"Content-Type": "application/json", "User-Agent": "modernbert-edu"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(payload).encode(), headers)
    try:
        with _opener(url).open(request, timeout=timeout) as response:
            body = response.read(LONGEST_ANSWER)
    except urllib.error.HTTPError as error:
        raise InputError(_refusal(error, url, key)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        slow = isinstance(reason, TimeoutError)
        said = f"no answer within {timeout:g} s" if slow else _one_line(str(reason) or type(reason).__name__, key)
        raise InputError(f"{url} cannot be asked: {said}; is the server running?") from None
    return _content(body, url)


def _opener(url: str) -> urllib.request.OpenerDirector:
    host = urllib.parse.urlsplit(url).hostname or ""
    here = host == "localhost" or host == "::1" or host.startswith("127.")
    return urllib.request.build_opener(_NoRedirect, *([urllib.request.ProxyHandler({})] if here else []))


def _refusal(error: urllib.error.HTTPError, url: str, key: str) -> str:
    """One line of what a status of 300 or more says, and what to do about it."""
    try:
        said = json.loads(error.read(100_000))
        said = said.get("error", said.get("detail", said))  # OpenAI's and others' places for it
        said = said.get("message", "") if isinstance(said, dict) else said
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        said = ""
    said = _one_line(said, key) if isinstance(said, str) and said.strip() else _one_line(str(error.reason), key)
    mend = {
        401: f"set {KEY} to a key of this server",
        403: f"set {KEY} to a key of this server",
        404: "does the URL end as the server's documentation says (often /v1), and is --api-model one of its models?",
    }.get(error.code, "give the URL that it moved to" if error.code < 400 else "see the server's documentation and log")
    return f"{url} answers with status {error.code} ({said}); {mend}"


def _content(body: bytes, url: str) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        content = None
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"{url} answers, but not as OpenAI's chat completions do; give such a server's URL")
    # It goes to a terminal: no control characters.
    return "".join(c for c in content if c.isprintable() or c in "\n\t").strip()


def _one_line(text: str, key: str) -> str:
    text = " ".join(text.split())
    text = "".join(c for c in (text.replace(key, "...") if key else text) if c.isprintable())
    return text if len(text) <= 200 else text[:197] + "..."
