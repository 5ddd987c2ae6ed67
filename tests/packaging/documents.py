"""The documents as data: their links, their code blocks, and what is wrong with either.

Run as a script it prints what is wrong with README, CHANGELOG, SECURITY and docs/, and exits 1 if
anything is. It needs no package, and never looks at addresses outside the repository.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FENCE = re.compile(
    r"(?:^[ ]*<!--[ ](?P<marker>[^\n]*?)[ ]-->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>[\w+-]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block. marker: the HTML comment on the line before it, or "". line: its first."""

    marker: str
    language: str
    code: str
    line: int


def documents() -> list[Path]:
    top = ("README.md", "CHANGELOG.md", "SECURITY.md")
    return [*(ROOT / name for name in top), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a document, in order; those in list items lose their indent."""
    for match in FENCE.finditer(text):
        yield Block(
            match["marker"] or "",
            match["language"],
            textwrap.dedent(match["code"]),
            text.count("\n", 0, match.start("code")) + 1,
        )


def problems(document: Path) -> Iterator[str]:
    """What is wrong with a document, each with its place."""
    text = document.read_text(encoding="utf-8")
    name = document.relative_to(ROOT)
    for block in blocks(text):
        if block.language == "python":
            try:
                compile(block.code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            except SyntaxError as error:
                line = block.line + (error.lineno or 1) - 1
                yield f"{name}:{line}: this Python does not compile: {error.msg}"
    # Blanked, not removed, so that the line numbers stay.
    prose = FENCE.sub(lambda match: re.sub(r"[^\n]", "", match[0]), text)
    for link in LINK.finditer(prose):
        reason = _astray(document, link["target"], prose)
        if reason:
            line = prose.count("\n", 0, link.start()) + 1
            yield f"{name}:{line}: {link['target']} {reason}"


def _astray(document: Path, target: str, prose: str) -> str:
    """Why a link leads nowhere; "" when it does lead somewhere, or out of the repository."""
    if re.match(r"[a-z]+:", target):
        return ""
    path, _, anchor = target.partition("#")
    place = (document.parent / path).resolve() if path else document
    if not place.exists():
        return "leads to no file"
    if not place.is_relative_to(ROOT):
        return "leads out of the repository"
    if anchor:
        headed = place.read_text(encoding="utf-8") if path else prose
        if anchor not in {_slug(heading) for heading in HEADING.findall(headed)}:
            return "leads to no heading"
    return ""


def _slug(heading: str) -> str:
    """The anchor that forges give a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


if __name__ == "__main__":
    found = [problem for document in documents() for problem in problems(document)]
    print(
        "\n".join(found) or f"{len(documents())} documents: links and Python are as they should be."
    )
    sys.exit(bool(found))
