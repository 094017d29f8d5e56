"""What a test needs of the machine: skipped visibly on a laptop that lacks it, failed where `CI` is set."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
NODE_MODULES = TESTS / "node_modules"


def _on_path(*names: str) -> Callable[[], str | None]:
    def find() -> str | None:
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        return next((found for name in names if (found := shutil.which(name, path=path))), None)

    return find


def _node_module(name: str) -> Callable[[], str | None]:
    def find() -> str | None:
        return str(NODE_MODULES / name) if (NODE_MODULES / name / "package.json").exists() else None

    return find


def _postgres() -> str | None:
    """The directory of PostgreSQL's server programs; Debian keeps it off PATH."""
    for initdb in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True):
        return str(initdb.parent)
    found = shutil.which("initdb")
    return str(Path(found).resolve().parent) if found else None


def _root() -> str | None:
    return "root" if os.geteuid() == 0 else None


_FINDERS: dict[str, tuple[Callable[[], str | None], str]] = {
    "node": (_on_path("node"), "install Node.js"),
    "ws": (_node_module("ws"), "run `make node-modules`, which needs npm"),
    "playwright-core": (_node_module("playwright-core"), "run `make node-modules`, which needs npm"),
    "nginx": (_on_path("nginx"), "install nginx"),
    "openssl": (_on_path("openssl"), "install openssl"),
    "haproxy": (_on_path("haproxy"), "install HAProxy"),
    "cc": (_on_path("cc"), "install gcc and libc6-dev"),
    "chromium": (_on_path("chromium", "chromium-browser", "google-chrome"), "install Chromium"),
    "redis": (_on_path("redis-server", "valkey-server"), "install redis-server"),
    "postgres": (_postgres, "install PostgreSQL's server"),
    "msgfmt": (_on_path("msgfmt"), "install gettext"),
    "root": (_root, "run as root, for port 80"),
}


def need(name: str) -> str:
    """Where the thing is; the test is skipped, or fails if `CI` is set, when it is not there."""
    find, remedy = _FINDERS[name]
    found = find()
    if found is not None:
        return found
    sentence = f"this test needs {name}, which is missing: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)
