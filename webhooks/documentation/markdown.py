"""The event catalogue as one Markdown document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from webhooks.documentation.pages import Entry, entries, facts

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>()#+\-!|~&])")


def as_markdown() -> str:
    """The catalogue as one Markdown document."""
    return "\n\n".join(_markdown()) + "\n"


def _markdown() -> Iterator[str]:
    told = facts()
    yield "# Event catalogue"
    yield (
        f"Each event is one POST to your endpoint. Answer 2xx within {told.timeout} seconds: any "
        "other answer, redirects too, is a failure."
    )
    yield (
        f"A failed delivery is tried {told.tries} times in all"
        + (f", after {', '.join(told.waits)}" if told.waits else "")
        + ". Answer 410 and you are unsubscribed. The same `webhook-id` may come more than once: "
        "remember it, and do nothing the second time."
    )
    if told.source_ips:
        yield f"The POSTs come from {', '.join(f'`{each}`' for each in told.source_ips)}."
    listed = entries()
    if not listed:
        yield "There are no public event types yet."
        return
    yield "\n".join(f"- [`{entry.name}`](#{_anchor(entry.name)})" for entry in listed)
    for entry in listed:
        yield from _section(entry)


def _section(entry: Entry) -> Iterator[str]:
    yield f"## {_plain(entry.name, code=True)}"
    yield f"**{_plain(entry.title)}**"
    if entry.description:
        yield _plain(entry.description)
    yield "### Data"
    if entry.rows:
        lines = ["| Field | Type | Required | Description |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {_plain(row.path)} | {_plain(row.kind)} | {'yes' if row.required else 'no'} "
            f"| {_plain(row.description)} |"
            for row in entry.rows
        ]
        yield "\n".join(lines)
    if entry.schema:
        yield _fenced(entry.schema, "json")
    else:
        yield "This type has no schema. Its data is a JSON object like that of the example."
    yield "### Example"
    yield "The headers, and the body (indented here; it is sent and signed as the code has it):"
    yield _fenced("\n".join(f"{name}: {value}" for name, value in entry.example.headers.items()))
    yield _fenced(entry.example.indented, "json")
    yield f"It is signed with the secret `{entry.example.secret}`."
    for snippet in entry.snippets:
        yield f"### {snippet.title}"
        yield _fenced(snippet.code.rstrip(), snippet.language)


def _plain(text: str, *, code: bool = False) -> str:
    """Text that Markdown and HTML in it leave as it is, on one line."""
    line = " ".join(text.split())
    return f"`{line}`" if code else _SPECIAL.sub(r"\\\1", line)


def _fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _anchor(name: str) -> str:
    return name.replace(".", "")
