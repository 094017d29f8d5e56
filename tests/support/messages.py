"""The messages of the console: which there are, which the Chinese catalogue translates, and its files.

``make messages`` brings the catalogue up to date: new messages are added empty (a test then fails until they
are translated), those that are gone are dropped, and the ``.mo`` that Django reads is written anew. Plain
Python, so that it needs no gettext tools.
"""

import ast
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from gettext import GNUTranslations
from pathlib import Path

import django
import unfold
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
OURS = ("units", "domains", "cutover", "msha")
_SKIPPED = ("migrations", "edge", "steering")
"""No page shows their text, or, as in the core's faults, it is English everywhere."""

_SINGULAR = {"gettext", "gettext_lazy", "gettext_noop", "_"}
_PLURAL = {"ngettext", "ngettext_lazy"}
_IN_CONTEXT = {"pgettext", "pgettext_lazy"}
_PLURAL_IN_CONTEXT = {"npgettext", "npgettext_lazy"}

HEADER = (
    "Project-Id-Version: msha\nLanguage: zh_Hans\nMIME-Version: 1.0\n"
    "Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n"
    "Plural-Forms: nplurals=1; plural=0;\n"
)


@dataclass(frozen=True, slots=True, order=True)
class Message:
    """One message; ``context`` and ``plural`` are "" where it has none."""

    text: str
    plural: str = ""
    context: str = ""

    @property
    def key(self) -> str:
        """As GNU catalogues spell it."""
        return f"{self.context}\x04{self.text}" if self.context else self.text


@dataclass
class Entry:
    """A message of the catalogue with its translation, and where it stands in the source."""

    message: Message
    translation: str = ""
    places: list[str] = field(default_factory=list)


# -- collecting --------------------------------------------------------------------------------------------


def ours() -> dict[Message, list[str]]:
    """Every message in our Python and templates, with the files in which it stands."""
    found: dict[Message, list[str]] = {}
    for app in OURS:
        for path in sorted((ROOT / app).rglob("*.py")):
            if not any(part in _SKIPPED for part in path.relative_to(ROOT).parts):
                _note(found, python_messages(path.read_text()), path)
    for path in sorted((ROOT / "templates").rglob("*.html")):
        _note(found, template_messages(path.read_text()), path)
    return found


def unfolds() -> dict[Message, list[str]]:
    """Every message of django-unfold that Django's own catalogues do not translate."""
    package = Path(unfold.__file__).parent
    found: dict[Message, list[str]] = {}
    for path in sorted(package.rglob("*")):
        if "contrib" in path.parts and not {"filters", "forms", "inlines"} & set(path.parts):
            continue  # parts of it that are not installed
        if path.suffix == ".html":
            _note(found, template_messages(path.read_text()), Path("unfold") / path.name)
        elif path.suffix == ".py":
            _note(found, python_messages(path.read_text()), Path("unfold") / path.name)
    known = djangos()
    return {message: places for message, places in found.items() if message.key not in known}


def djangos() -> set[str]:
    """The keys that Django itself, with the apps of it that are installed, translates."""
    keys: set[str] = set()
    root = Path(django.__file__).parent
    for place in ("conf", *(f"contrib/{app}" for app in ("admin", "auth", "contenttypes", "sessions"))):
        with (root / place / "locale/zh_Hans/LC_MESSAGES/django.mo").open("rb") as file:
            catalogue = GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        keys.update(key[0] if isinstance(key, tuple) else key for key in catalogue)
    return keys


def _note(found: dict[Message, list[str]], messages: Iterable[Message], path: Path) -> None:
    place = str(path.relative_to(ROOT)) if path.is_absolute() else str(path)
    for message in messages:
        places = found.setdefault(message, [])
        if place not in places:
            places.append(place)


def python_messages(source: str) -> Iterator[Message]:
    """The literal arguments of gettext and its relatives."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        literals = (arg.value for arg in node.args if isinstance(arg, ast.Constant))
        words = [value for value in literals if isinstance(value, str)]
        if name in _SINGULAR and len(words) == 1 and words[0]:
            yield Message(words[0])
        elif name in _PLURAL and len(words) == 2:
            yield Message(words[0], words[1])
        elif name in _IN_CONTEXT and len(words) == 2:
            yield Message(words[1], context=words[0])
        elif name in _PLURAL_IN_CONTEXT and len(words) == 3:
            yield Message(words[1], words[2], context=words[0])


def template_messages(source: str) -> Iterator[Message]:
    """The messages of a template's tags and ``_("...")`` constants."""
    text = templatize(source)
    # What is left are the calls, among runs of X: each is cut out and read as Python.
    for match in re.finditer(r"(?<![A-Za-z])(_|gettext|ngettext|pgettext|npgettext)\(", text):
        call = _whole_call(text, match.start())
        if call is None:
            continue
        try:
            yield from python_messages(call)
        except SyntaxError:
            continue


def _whole_call(text: str, start: int) -> str | None:
    """The call that begins there, up to its closing bracket."""
    for end in (match.end() for match in re.finditer(r"\)", text[start : start + 4000])):
        candidate = text[start : start + end]
        try:
            ast.parse(candidate)
        except SyntaxError:
            continue
        return candidate
    return None


# -- the catalogue's files -----------------------------------------------------------------------------------


def read(path: Path = CATALOGUE) -> dict[Message, str]:
    """The translations of a ``.po`` file; "" for those that nobody has made."""
    found: dict[Message, str] = {}
    if not path.exists():
        return found
    parts: dict[str, str] = {}
    current = ""
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if parts.get("msgid"):
                message = Message(parts["msgid"], parts.get("msgid_plural", ""), parts.get("msgctxt", ""))
                found[message] = parts.get("msgstr", "")
            parts = {}
            continue
        keyword, _, literal = ("", "", line) if line.startswith('"') else line.partition(" ")
        if keyword:
            current = keyword.removesuffix("[0]")
            parts[current] = ""
        parts[current] += ast.literal_eval(literal)
    return found


def write(entries: Iterable[Entry], path: Path = CATALOGUE) -> None:
    """The ``.po`` and beside it the ``.mo``."""
    entries = sorted(entries, key=lambda entry: (entry.places[:1], entry.message))
    lines = ['msgid ""', 'msgstr ""', *(_quoted(f"{line}\n") for line in HEADER.splitlines()), ""]
    for entry in entries:
        message = entry.message
        lines += [f"#: {place}" for place in entry.places[:3]]
        if "%(" in message.text or "%(" in message.plural:
            lines.append("#, python-format")
        if message.context:
            lines.append(f"msgctxt {_quoted(message.context)}")
        lines.append(f"msgid {_quoted(message.text)}")
        if message.plural:
            lines += [f"msgid_plural {_quoted(message.plural)}", f"msgstr[0] {_quoted(entry.translation)}"]
        else:
            lines.append(f"msgstr {_quoted(entry.translation)}")
        lines.append("")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    translated = {entry.message: entry.translation for entry in entries if entry.translation}
    path.with_suffix(".mo").write_bytes(compiled(translated))


def compiled(translations: dict[Message, str]) -> bytes:
    """A ``.mo`` file: sorted keys, sorted values, no hash table (gettext's own format, version 0)."""
    pairs = {"": HEADER}
    for message, translation in translations.items():
        key = f"{message.key}\x00{message.plural}" if message.plural else message.key
        pairs[key] = translation
    rows = sorted((key.encode(), value.encode()) for key, value in pairs.items())
    offset = 28 + 16 * len(rows)
    tables: list[list[tuple[int, int]]] = [[], []]
    blobs = b""
    for index in (0, 1):
        for row in rows:
            tables[index].append((len(row[index]), offset + len(blobs)))
            blobs += row[index] + b"\x00"
    head = struct.pack("<7I", 0x950412DE, 0, len(rows), 28, 28 + 8 * len(rows), 0, 0)
    return head + b"".join(struct.pack("<2I", *cell) for table in tables for cell in table) + blobs


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def main() -> None:
    """Bring the catalogue up to date."""
    import sys

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "msha.settings")
    os.environ.setdefault("MSHA_DEBUG", "1")
    django.setup()
    known = read()
    wanted = {**unfolds(), **ours()}
    entries = [Entry(message, known.get(message, ""), places) for message, places in wanted.items()]
    write(entries)
    missing = [entry for entry in entries if not entry.translation]
    print(f"{len(entries)} messages, {len(missing)} without a translation")
    for entry in missing:
        print(f"  {entry.places[0]}: {entry.message.text!r}")
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
