"""The Chinese catalogue: complete, in step with the sources, and the one Django reads."""

import re
from gettext import GNUTranslations
from pathlib import Path

import pytest
from django.utils import translation

from tests.support import messages
from tests.support.messages import CATALOGUE, Message

PLACEHOLDER = re.compile(r"%\(\w+\)[-+.\d]*[a-z]|%%\w+%%")


@pytest.fixture(scope="module")
def wanted() -> dict[Message, list[str]]:
    """Every message of ours and of django-unfold, with the files it stands in."""
    return {**messages.unfolds(), **messages.ours()}


def test_every_message_has_a_chinese_translation(wanted: dict[Message, list[str]]) -> None:
    known = messages.read()
    missing = [f"{places[0]}: {m.text!r}" for m, places in wanted.items() if not known.get(m)]
    assert not missing, "untranslated; run `make messages`, then translate:\n" + "\n".join(missing)


def test_no_translation_is_left_of_a_message_that_is_gone(wanted: dict[Message, list[str]]) -> None:
    gone = [message.text for message in messages.read() if message not in wanted]
    assert not gone, f"run `make messages`: {gone}"


def test_a_translation_fills_in_what_its_message_does() -> None:
    for message, translated in messages.read().items():
        allowed = set(PLACEHOLDER.findall(message.text)) | set(PLACEHOLDER.findall(message.plural))
        assert set(PLACEHOLDER.findall(translated)) <= allowed, translated
        if not message.plural:
            assert set(PLACEHOLDER.findall(translated)) == allowed, translated


def test_the_compiled_catalogue_says_what_the_text_says() -> None:
    with CATALOGUE.with_suffix(".mo").open("rb") as file:
        compiled = GNUTranslations(file)
    for message, translated in messages.read().items():
        if message.plural:
            found = compiled.ngettext(message.key, message.plural, 2)
        else:
            found = compiled.gettext(message.key)
        assert found == translated, "run `make messages`"


def test_our_words_win_over_djangos_and_reach_unfolds_pages() -> None:
    with translation.override("zh-hans"):
        assert translation.gettext("Search apps and models...") == "搜索页面和对象..."
        assert translation.gettext("Put into effect") == "生效"
        assert translation.pgettext("role of a node", "losing") == "切出"
        assert translation.ngettext("%(n)d id", "%(n)d ids", 3) % {"n": 3} == "3 个 id"


def test_messages_are_found_in_python_and_in_templates(tmp_path: Path) -> None:
    python = (
        '_("one")\ngettext_lazy("two" " parts")\nngettext("a", "b", n)\npgettext("where", "what")\n_(name)'
    )
    assert set(messages.python_messages(python)) == {
        Message("one"),
        Message("two parts"),
        Message("a", "b"),
        Message("what", context="where"),
    }
    template = (
        '{% load i18n %}{% translate "three" %}{% blocktranslate count n=x trimmed %}\n {{ n }} id\n'
        '{% plural %}{{ n }} ids{% endblocktranslate %}<p>{{ a|default:_("four") }}</p>'
        '{% translate "it\'s (five)" context "place" %}'
    )
    assert set(messages.template_messages(template)) == {
        Message("three"),
        Message("%(n)s id", "%(n)s ids"),
        Message("four"),
        Message("it's (five)", context="place"),
    }
