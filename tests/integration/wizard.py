"""The console as a browser without scripts uses it: forms are read from the pages and sent back."""

from html.parser import HTMLParser
from typing import Self

import httpx

from msha.demo.fleet import Fleet

Fields = list[tuple[str, str]]


class Forms(HTMLParser):
    """The forms of a page: what a browser would send if nothing was touched, and the buttons they have."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[Fields] = []
        self.buttons: list[list[str]] = []
        self._open = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        has = {key: value or "" for key, value in attributes}
        if tag == "form":
            self._open = has.get("method", "get").lower() == "post"
            if self._open:
                self.forms.append([])
                self.buttons.append([])
        elif self._open and tag == "button" and has.get("name") == "act":
            self.buttons[-1].append(has["value"])
        elif self._open and tag == "input" and "name" in has and has.get("type") not in ("submit", "button"):
            self.forms[-1].append((has["name"], has.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = False

    def form(self, act: str) -> Fields:
        """The fields of the first form that has a button, or a hidden field, for the act."""
        for fields, buttons in zip(self.forms, self.buttons, strict=True):
            if act in buttons or ("act", act) in fields:
                return [pair for pair in fields if pair[0] != "act"]
        raise AssertionError(f"no form with act {act!r}; there are {self.buttons} {self.forms}")


class Wizard:
    """One operator's browser."""

    def __init__(self, fleet: Fleet, role: str = "operator") -> None:
        self._http = httpx.Client(base_url=fleet.console_url, follow_redirects=True, timeout=30)
        login = fleet.logins[role]
        page = self._http.get("/admin/login/")
        token = dict(Forms(page.text).forms[0])["csrfmiddlewaretoken"]
        credentials = {"username": login.user, "password": login.password, "next": "/"}
        answer = self._post("/admin/login/", [*credentials.items(), ("csrfmiddlewaretoken", token)])
        assert answer.url.path == "/", answer.text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str) -> httpx.Response:
        """The page, which must be there."""
        page = self._http.get(path)
        assert page.status_code == 200, f"{path}: {page.status_code}"
        return page

    def act(self, page: httpx.Response, act: str, **changes: str | list[str]) -> httpx.Response:
        """The page that pressing the button led to, with some fields filled in."""
        fields = [pair for pair in Forms(page.text).form(act) if pair[0] not in changes]
        for name, value in changes.items():
            fields += [(name, one) for one in ([value] if isinstance(value, str) else value)]
        return self._post(str(page.url), [*fields, ("act", act)])

    def status(self, cutover: int) -> dict[str, object]:
        """The status that the live page shows."""
        status: dict[str, object] = self.get(f"/cutover/{cutover}/status/").json()
        return status

    def _post(self, url: str, fields: Fields) -> httpx.Response:
        body = httpx.QueryParams(fields)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Referer": url}
        return self._http.post(url, content=str(body), headers=headers)
