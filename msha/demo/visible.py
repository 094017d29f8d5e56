"""Text of other programs, and of whoever talks to them, made fit for a terminal."""

import unicodedata

#: Control and format characters (bidi controls are of these), lone surrogates, line and paragraph separators.
_UNFIT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    r"""One line that a terminal shows and does not obey: what would steer it stands there as ``\n``,
    ``\x1b``, ``\u202e``.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character != "\t" and unicodedata.category(character) in _UNFIT:
        return character.encode("unicode_escape").decode("ascii")
    return character
