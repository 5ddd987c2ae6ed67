"""Catalogues of translations as data: what a .po holds, what the sources ask for, what a page says.

No tool of gettext is needed: a .po is read here, a .mo by the standard library, templates by
Django's own ``templatize``.
"""

from __future__ import annotations

import ast
import gettext
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
#: The folders that have a catalogue, each with what its catalogue leaves out: the API and its
#: documents are English.
FOLDERS = {"webhooks": ("api", "documentation"), "example_project/campaigns": ()}

#: What marks a string, and the places of context, string and plural among its arguments.
_CALLS: dict[str, tuple[int | None, int, int | None]] = {
    **dict.fromkeys(("_", "gettext", "gettext_lazy", "gettext_noop"), (None, 0, None)),
    **dict.fromkeys(("ngettext", "ngettext_lazy"), (None, 0, 1)),
    **dict.fromkeys(("pgettext", "pgettext_lazy"), (0, 1, None)),
    **dict.fromkeys(("npgettext", "npgettext_lazy"), (0, 1, 2)),
}
_QUOTED = r"""u?(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
_IN_TEMPLATES = re.compile(rf"\b(_|n?p?gettext)\(((?:{_QUOTED}[, ]*)+)")
#: Words that no German sentence has, and our pages would have if they were English.
_ENGLISH = re.compile(
    r"\b(the|of|and|is|are|its?|to|for|not|with|has|have|from|that|this|which|when|how|who|no|by"
    r"|each|all|none|any|deliver(y|ies|ed)|events?|subscriptions?|attempts?|retry|pending|dead"
    r"|states?|owner|show|next|reasons?|since|last|first|sent|opened|clicked|failed|lanes?"
    r"|choose|given|created|campaigns?|devices?|user)\b",
    re.IGNORECASE,
)
#: What is English in German pages too: names of event types and hosts, statuses of HTTP, terms.
_NAMES = re.compile(r"\w+(\.\w+)+|Dead Letters?|Retry-After|\d{3} [A-Z][a-z]+( [A-Z][a-z]+)*")


@dataclass(frozen=True)
class Key:
    """What a string is looked up by. plural, context: "" where it has none."""

    text: str
    plural: str = ""
    context: str = ""


def entries(folder: str) -> dict[Key, tuple[str, ...]]:
    """The German catalogue of a folder: each string with its translation, or one a plural form.

    What is fuzzy or obsolete is no translation: it raises ValueError.
    """
    found: dict[Key, tuple[str, ...]] = {}
    text = (_place(folder) / "django.po").read_text(encoding="utf-8")
    for block in text.split("\n\n"):
        if re.search(r"^#(~|,.*fuzzy)", block, re.MULTILINE):
            raise ValueError(f"{folder}: fuzzy or obsolete:\n{block}")
        values: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            word, _, quoted = line.rpartition(' "') if not line.startswith('"') else ("", "", line)
            if word:
                name, quoted = word, f'"{quoted}'
            values[name] = values.get(name, "") + ast.literal_eval(quoted)
        if values.get("msgid"):
            key = Key(values["msgid"], values.get("msgid_plural", ""), values.get("msgctxt", ""))
            assert key not in found, key
            found[key] = tuple(v for k, v in values.items() if k.startswith("msgstr"))
    return found


def compiled(folder: str) -> dict[Key, tuple[str, ...]]:
    """The same of the file that Django reads; of plurals it keeps the singular alone."""
    with (_place(folder) / "django.mo").open("rb") as file:
        catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    found: dict[Key, tuple[str, ...]] = {}
    for key, text in sorted(catalogue.items(), key=str):
        whole, number = key if isinstance(key, tuple) else (key, None)
        context, _, name = whole.rpartition("\x04")
        if name:
            known = Key(name, context=context)
            found[known] = (*found.get(known, ()), text) if number is not None else (text,)
    return found


def marked(folder: str) -> Iterator[tuple[Path, Key]]:
    """Every string that the sources of a folder mark for translation, with its file.

    Raises ValueError for one that is computed: no catalogue can hold it.
    """
    place = ROOT / folder
    for path in sorted(place.rglob("*")):
        if path.suffix not in (".py", ".html", ".svg", ".txt"):
            continue
        if path.relative_to(place).parts[0] in (*FOLDERS[folder], "migrations", "locale"):
            continue
        read = _of_python if path.suffix == ".py" else _of_template
        for key in read(path):
            yield path, key


def _of_python(path: Path) -> Iterator[Key]:
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)) if "gettext" in text else ():
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in _CALLS:
            values = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if len(values) <= max(filter(None, _CALLS[name]), default=0):
                raise ValueError(f"{path}:{node.lineno}: {name}() of a text that is computed")
            yield _key(name, values)


def _of_template(path: Path) -> Iterator[Key]:
    for found in _IN_TEMPLATES.finditer(templatize(path.read_text(encoding="utf-8"))):
        arguments = ast.literal_eval(f"({found[2].rstrip(', ')},)")
        yield _key(found[1], arguments)


def _key(name: str, arguments: Sequence[str]) -> Key:
    context, text, plural = _CALLS[name]
    return Key(
        arguments[text],
        "" if plural is None else arguments[plural],
        "" if context is None else arguments[context],
    )


def _place(folder: str) -> Path:
    return ROOT / folder / "locale" / "de" / "LC_MESSAGES"


class Page(HTMLParser):
    """What people read of a page, and what is read out to them: a list of texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._code = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._code += tag in ("code", "pre", "textarea", "script", "style")
        given = dict(attrs)
        names = ["title", "aria-label", "placeholder"]
        names += ["value"] if given.get("type") == "submit" else []
        self.texts += [text for name in names if (text := given.get(name))]

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "pre", "textarea", "script", "style")

    def handle_data(self, data: str) -> None:
        if not self._code and data.strip():
            self.texts.append(" ".join(data.split()))


def english(html: str) -> list[str]:
    """The texts of a German page that have an English word in them."""
    return [text for text in Page(html).texts if _ENGLISH.search(_NAMES.sub("", text))]
