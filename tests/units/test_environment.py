from collections.abc import Callable

import pytest
from django.core.exceptions import ImproperlyConfigured

from msha import environment


def test_a_missing_value_without_default_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSHA_X", raising=False)
    with pytest.raises(ImproperlyConfigured, match="MSHA_X is not set"):
        environment.text("MSHA_X")


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        (lambda: environment.boolean("MSHA_X", False), "maybe"),
        (lambda: environment.integer("MSHA_X", 1, minimum=0, maximum=9), "10"),
        (lambda: environment.integer("MSHA_X", 1, minimum=0, maximum=9), "-1"),
        (lambda: environment.choice("MSHA_X", "a", ("a", "b")), "c"),
        (lambda: environment.database("MSHA_X", ""), "mysql://x/y"),
        (lambda: environment.database("MSHA_X", ""), "sqlite://relative.sqlite3"),
        (lambda: environment.database("MSHA_X", ""), "postgres://host/"),
        (lambda: environment.redis("MSHA_X", required=False), "localhost:6379"),
        (lambda: environment.redis("MSHA_X", required=False), "unix:relative.sock"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(
    reader: Callable[[], object], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSHA_X", value)
    with pytest.raises(ImproperlyConfigured, match="MSHA_X"):
        reader()


def test_sqlite_begins_immediate_and_forgets_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSHA_X", "sqlite:////var/lib/msha.sqlite3")
    settings = environment.database("MSHA_X", "")
    assert settings["NAME"] == "/var/lib/msha.sqlite3"
    assert settings["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "synchronous=FULL" in settings["OPTIONS"]["init_command"]
    assert "journal_mode=WAL" in settings["OPTIONS"]["init_command"]


def test_a_postgres_url_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSHA_X", "postgres://u%40x:p%2Fw@db.example:5433/msha?sslmode=require")
    settings = environment.database("MSHA_X", "")
    assert (settings["USER"], settings["PASSWORD"], settings["HOST"]) == ("u@x", "p/w", "db.example")
    assert (settings["PORT"], settings["NAME"], settings["OPTIONS"]["sslmode"]) == ("5433", "msha", "require")


def test_a_unix_socket_is_spelt_for_each_of_the_two_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSHA_X", "unix:///run/valkey.sock?db=2")
    address = environment.redis("MSHA_X", required=True)
    assert address.layer == "unix:///run/valkey.sock?db=2"
    assert address.broker == "redis+socket:///run/valkey.sock?virtual_host=2"
