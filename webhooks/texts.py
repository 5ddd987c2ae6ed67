"""Text from outside, as it can be looked at: nothing in it acts, hides or turns around the rest.

Templates escape markup. What is left are characters that no one sees, and that change what is
seen: control characters, and those that direct the writing (Unicode TR 36, bidirectional text
spoofing).
"""

from __future__ import annotations

import json
import unicodedata
from typing import Final

#: Control, format, surrogate and private-use characters, separators of lines and paragraphs.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_KEPT: Final = frozenset("\n\t")


def visible(text: str) -> str:
    """The text with each character that is not seen written as JSON writes it: ``\\u202e``.

    Line feeds and tabs stay; a carriage return before a line feed goes. JSON that is copied from
    it means the same.
    """
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        json.dumps(each)[1:-1]
        if each not in _KEPT and unicodedata.category(each) in _UNSEEN
        else each
        for each in text
    )
