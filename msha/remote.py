"""The console as `mshactl` sees it: its API over HTTP, the options all commands share, and how they answer.

Results go to stdout, everything else to stderr; exit codes are 0 done, 1 refused or failed, 2 usage.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlsplit

import click
import httpx

TIMEOUT_S = 30.0


class Refusal(click.ClickException):
    """The console refused, or could not be asked; one sentence on stderr, exit code 1.

    Attributes:
        code: the API's word for it, or ``unreachable``.
        status: of HTTP; 0 when there was no answer.
        place: where in the input the fault is, or "".
    """

    exit_code = 1

    def __init__(self, sentence: str, code: str = "", status: int = 0, place: str = "") -> None:
        super().__init__(sentence)
        self.code = code
        self.status = status
        self.place = place

    def format_message(self) -> str:
        placed = self.place and not self.message.startswith(("line ", self.place))
        return f"{self.place}: {self.message}" if placed else self.message


class Misuse(click.ClickException):
    """The command cannot be meant so; one sentence on stderr, exit code 2."""

    exit_code = 2


class Console:
    """The API of one console, as one user."""

    def __init__(self, url: str, token: str, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=f"{self.url}/api/v1/",
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            timeout=timeout_s,
            follow_redirects=False,
        )

    @classmethod
    def from_environment(cls) -> "Console":
        """The console of ``MSHA_URL``, asked as the owner of ``MSHA_TOKEN``."""
        url = os.environ.get("MSHA_URL", "").strip()
        token = os.environ.get("MSHA_TOKEN", "").strip()
        if not url:
            raise Misuse("MSHA_URL is not set. Set it to the console, as http://127.0.0.1:8000.")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Misuse(f"MSHA_URL is {url!r}. Set it to an address such as http://127.0.0.1:8000.")
        if not token:
            raise Misuse("MSHA_TOKEN is not set. Set it to an API token of yours; the console makes one.")
        if not token.isascii() or not token.isprintable():
            raise Misuse("MSHA_TOKEN is not an API token; it begins with msha_api_.")
        return cls(url, token)

    def get(self, path: str, /, **query: Any) -> Any:
        """The JSON value of a resource; ``None`` in the query is left out."""
        return self._ask("GET", path, params={k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON value that an act answers with."""
        return self._ask("POST", path, json=dict(body or {}))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON value of the changed resource."""
        return self._ask("PATCH", path, json=dict(body))

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON value of the replaced resource."""
        return self._ask("PUT", path, json=dict(body))

    def close(self) -> None:
        self._client.close()

    def _ask(self, method: str, path: str, *, json: Any = None, **arguments: Any) -> Any:
        if json is not None:
            arguments |= {"content": _encoded(json), "headers": {"Content-Type": "application/json"}}
        try:
            response = self._client.request(method, path.lstrip("/"), **arguments)
        except httpx.TimeoutException as error:
            raise Refusal(
                f"The console at {self.url} did not answer within {TIMEOUT_S:.0f} s.", "unreachable"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Refusal(
                f"The console at {self.url} cannot be reached ({error or type(error).__name__})."
                " Is it running, and is MSHA_URL right?",
                "unreachable",
            ) from error
        if response.is_success:
            return self._value(response)
        raise self._refusal(response)

    def _value(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise Refusal(
                f"What answers at {self.url} is not an msha console. Is MSHA_URL right?", "unreachable"
            ) from error

    def _refusal(self, response: httpx.Response) -> Refusal:
        try:
            error = response.json()["error"]
            return Refusal(error["sentence"], error["code"], response.status_code, error.get("place") or "")
        except (ValueError, KeyError, TypeError):
            return Refusal(
                f"The console at {self.url} answered {response.status_code} {response.reason_phrase}"
                " without a reason. Is MSHA_URL right?",
                "unreadable",
                response.status_code,
            )


def _encoded(value: Any) -> bytes:
    """The body of a request.

    Raises:
        Misuse: the value has a number or a text that JSON has not.
    """
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Misuse("A text is not valid UTF-8. Is the terminal's encoding right?") from error
    except ValueError as error:
        raise Misuse("A number is infinite or none at all (nan); give one that can be counted.") from error


@dataclass
class Call:
    """One invocation: what its common options say, and the console it speaks to."""

    named: str | None = None
    unit_type: str | None = None
    output: str = "text"
    _console: Console | None = field(default=None, repr=False)

    @property
    def console(self) -> Console:
        """The console; connected to when first needed, so that `--help` needs no environment."""
        if self._console is None:
            self._console = Console.from_environment()
        return self._console

    @functools.cached_property
    def namespace(self) -> str:
        """The namespace of ``-n``; without it the only one there is."""
        if self.named:
            return self.named
        names = [entry["name"] for entry in self.console.get("namespaces")["namespaces"]]
        if len(names) != 1:
            known = f"there are {', '.join(names)}" if names else "there is none yet"
            raise Misuse(f"Name the namespace with -n; {known}.")
        return str(names[0])

    def path(self, *parts: str | int) -> str:
        """The address of something in the namespace."""
        return "/".join(["namespaces", *(quote(str(part), safe="") for part in (self.namespace, *parts))])

    def show(self, result: Any, text: str | Callable[[], str]) -> None:
        """The result on stdout: as JSON if asked for, else as the text."""
        if self.output == "json":
            click.echo(json.dumps(result, ensure_ascii=False, indent=2))
        elif isinstance(text, str):
            click.echo(text)
        else:
            click.echo(text())


def say(text: str) -> None:
    """Progress, on stderr."""
    click.echo(text, err=True)


def confirm(question: str, yes: bool) -> None:
    """The operator agrees, by ``--yes`` or at the terminal; otherwise the command ends with exit code 1."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Misuse("Nobody is there to ask: pass --yes to go ahead without a question.")
    if not click.confirm(question, err=True):
        raise Refusal("Nothing was changed.", "declined")


_F = TypeVar("_F", bound=Callable[..., Any])


def common_options(command: _F) -> _F:
    """Adds ``-n``, ``--unit-type`` and ``-o``; the command gets a `Call` as its first argument."""

    @click.option("-n", "--namespace", "namespace", metavar="NAMESPACE", help="Default: the only one.")
    @click.option("--unit-type", metavar="NAME", help="Default: the namespace's default unit type.")
    @click.option(
        "-o", "output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form."
    )
    @functools.wraps(command)
    def wrapped(*args: Any, namespace: str | None, unit_type: str | None, output: str, **options: Any) -> Any:
        call = Call(namespace, unit_type, output)
        try:
            return command(call, *args, **options)
        finally:
            if call._console is not None:
                call._console.close()

    return wrapped  # type: ignore[return-value]


def table(rows: list[list[Any]], head: list[str]) -> str:
    """Rows as columns aligned for a terminal."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def read_text(file: IO[str]) -> str:
    """What is in the file.

    Raises:
        Refusal: it is not UTF-8, or cannot be read.
    """
    try:
        return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{file.name} cannot be read: {error}.") from error
