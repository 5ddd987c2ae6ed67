"""README and docs: their links lead somewhere, their Python compiles."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tests.packaging import documents
from tests.packaging.documents import ROOT, blocks, problems


@pytest.mark.parametrize(
    "document", documents.documents(), ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_and_code_of_the_document_hold(document: Path) -> None:
    assert list(problems(document)) == []


def test_a_broken_link_and_broken_code_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    (tmp_path / "there.md").write_text("# Some `heading`, here\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#some-heading-here) [c](https://example.com) [d](#no)\n"
        "[e](gone.md) [f](there.md#gone)\n\n"
        "```python\nawait x\n```\n\n"
        "- item\n\n  <!-- a mark -->\n  ```python\n  if x:\n      y z\n  ```\n"
    )
    assert list(problems(page)) == [
        "page.md:13: this Python does not compile: invalid syntax",
        "page.md:1: #no leads to no heading",
        "page.md:2: gone.md leads to no file",
        "page.md:2: there.md#gone leads to no heading",
    ]
    assert [block.marker for block in blocks(page.read_text())] == ["", "a mark"]


def test_the_tests_that_security_md_names_are_there() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "SECURITY.md").read_text()))
    assert len(named) > 15
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_the_readme_shows_the_output_of_its_two_commands() -> None:
    shown = list(blocks((ROOT / "README.md").read_text()))
    pairs = itertools.pairwise(shown)
    demo, tests = [(a, b) for a, b in pairs if a.language == "sh" and not a.marker]
    assert "manage.py demo --once --events 2000" in demo[0].code
    assert "It ties out." in demo[1].code
    assert "-m pytest" in tests[0].code
    assert re.search(r"=+ \d+ passed.* in [\d.:s ()]+ =+$", tests[1].code.strip())
