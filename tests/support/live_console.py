"""A real console over a database of its own, and users with API tokens in it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msha.demo.ports import free_ports
from msha.demo.processes import Child, stop

REPOSITORY = Path(__file__).resolve().parents[2]

_USERS = """
import json, django
django.setup()
from django.contrib.auth.models import Group, User
from django.core.management import call_command
call_command("migrate", verbosity=0)
from units.models import ApiToken
from units.tokens import API_PREFIX, make_token
tokens = {}
for name, group in (("olga", "operator"), ("victor", "viewer"), ("sue", "supervisor")):
    user = User.objects.create_user(name, password="a-password-of-tests", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    token = make_token(API_PREFIX)
    ApiToken.objects.create(user=user, name="test", token_hash=token.hash)
    tokens[name] = token.text
print(json.dumps(tokens))
"""


@dataclass
class LiveConsole:
    """A console that answers at ``url``.

    Attributes:
        tokens: of the operator olga, the viewer victor and the supervisor sue.
    """

    url: str
    tokens: dict[str, str]
    environment: dict[str, str] = field(repr=False)

    def mshactl(
        self, *arguments: str, user: str = "olga", stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """The finished command, run as the user."""
        return subprocess.run(
            [sys.executable, "-m", "msha.cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=REPOSITORY,
            env={
                "PATH": os.environ["PATH"],
                "LC_ALL": "C.UTF-8",
                "MSHA_URL": self.url,
                "MSHA_TOKEN": self.tokens[user],
                **environment,
            },
        )


def console_environment(database_url: str) -> dict[str, str]:
    """The environment of console processes over the database, without Redis."""
    return {
        **os.environ,
        "MSHA_DATABASE_URL": database_url,
        "MSHA_DEBUG": "1",
        "MSHA_LOG_LEVEL": "WARNING",
        "REDIS_URL": "",
        "DJANGO_SETTINGS_MODULE": "msha.settings",
    }


@contextmanager
def live_console(database_url: str, directory: Path) -> Iterator[LiveConsole]:
    """The console is up, its database migrated."""
    environment = console_environment(database_url)
    made = subprocess.run(
        [sys.executable, "-c", _USERS], cwd=REPOSITORY, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (port,) = free_ports(1)
    child = Child(
        "console",
        [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "msha.asgi:application"],
        log=directory / "console.log",
        env=environment,
        cwd=REPOSITORY,
    ).start()
    try:
        child.wait_until(lambda _: _accepts(port), 30)
        tokens = json.loads(made.stdout.splitlines()[-1])
        yield LiveConsole(f"http://127.0.0.1:{port}", tokens, environment)
    finally:
        stop([child])


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
