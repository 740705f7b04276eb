"""Text from a file or a user, made harmless for the place where it is written.

A name in a checkpoint may hold anything: escape sequences that clear a screen, line breaks that forge a line, a
format's own characters. JSON alone takes text as it is, since it escapes by itself.
"""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Characters that show nothing although their category says letter, mark or symbol."""

_FORMULA = re.compile(r"(^|;)(\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\textasciitilde{}"}
_LATEX |= {"<": r"\ensuremath{<}", ">": r"\ensuremath{>}"}

_LATEX |= {bar: rf"\rule{{.3em}}{{{n / 5}ex}}" for n, bar in enumerate(map(chr, range(0x2581, 0x2589)), start=1)}
_LATEX_HAS = re.compile(
    r"[ -~\xa0-\u0125\u0128-\u0137\u0139-\u013e\u0141-\u0148\u014a-\u0165\u0168-\u017e\u2013\u2014"
    r"\u2018-\u201a\u201c-\u201e\u2026\u20ac]"
)
"""A character of the encoding T1 or of its companion."""

_PLAIN = dict(zip("\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588", "12345678", strict=True))
_PLAIN |= {"\u00b1": "+-", "\u2026": "...", "\u2013": "-", "\u2014": "-", "\u2500": "-", "\u2502": "|"}
_PLAIN |= {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}


def visible(text: str) -> str:
    r"""One line without any character that acts or hides: each is written as its escape, such as `\x1b` or `\\n`.

    Those are control characters, line and paragraph separators, what changes the direction of writing, what has no
    width, and code points that are no characters, such as the bytes of a file name that is not UTF-8.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if _acts(character) else character for character in text)


def _acts(character: str) -> bool:
    code = ord(character)
    no_character = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return no_character or character in _BLANK or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that Python could not decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def latex(text: str) -> str:
    """One line in which nothing is a command, or ends a comment or a column.

    Letters that LaTeX's own fonts have stay; others, which would stop pdflatex, are written as their escapes. Signs
    that these fonts would join, such as `--`, stand apart.
    """
    typeset = (_LATEX.get(one) or _typeset(one) for one in unicodedata.normalize("NFC", visible(text)))
    return re.sub(r"(?<=[-,'`?!])(?=[-,'`])", "{}", "".join(typeset))


def _typeset(character: str) -> str:
    return character if _LATEX_HAS.match(character) else latex(_escaped(character))


def markdown(text: str) -> str:
    """One line in which nothing is a column's end, HTML, code, a link, a formula or, at its start, a heading or a list.

    Emphasis stays: it shows nothing that is not there.
    """
    line = re.sub(r"[\\|`$]", r"\\\g<0>", visible(text))
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)
    line = re.sub(r"\](?=[(\[])", r"\\]", line)
    line = line.replace("://", r":\//").replace("www.", r"www\.")
    line = re.sub(r"^\s*(?=[#>=]|\[.*\]:|[-+*]\s|-{3}|~{3})", r"\\", line)
    return re.sub(r"^\s*(\d+)(?=[.)]\s)", r"\1\\", line)


def github(text: str, *, value: bool = False) -> str:
    """One line as the message of a GitHub workflow command, or as the `value` of a property of one."""
    line = visible(text).replace("%", "%25")  # which leaves no line break
    return line.replace(":", "%3A").replace(",", "%2C") if value else line


def csv_cells(values: Iterable[object]) -> list[object]:
    """A row for a spreadsheet: text in which it would see a formula gets an apostrophe in front; numbers stay."""
    return [_cell(value) if isinstance(value, str) else value for value in values]


def _cell(text: str) -> str:
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub(r"\1\2'", visible(text))


def short_paths(paths: Iterable[str]) -> dict[str, str]:
    """Each path's stem, or the shortest end of it that no other has: `a/m` and `b/m`."""
    ends = {path: _ends(path) for path in paths}
    counts = Counter(end for own in ends.values() for end in set(own))
    return {path: next((end for end in own if counts[end] == 1), path) for path, own in ends.items()}


def _ends(path: str) -> Sequence[str]:
    """The ends of a path, the shortest first: without the suffix, then with it."""
    pure = PurePath(path)
    bare, whole = ((*pure.parts[:-1], name) for name in (pure.stem, pure.name))
    return [str(PurePath(*parts[-count:])) for parts in (bare, whole) for count in range(1, len(parts) + 1)]


def write_what_streams_can() -> None:
    """Let stdout and stderr write a stand-in for what their encoding lacks, where they would raise an error."""
    codecs.register_error("stand-in", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="stand-in")


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    wrong = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character) or _escaped(character) for character in wrong), error.end
