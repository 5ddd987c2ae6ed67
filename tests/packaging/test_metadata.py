"""What is in the wheel, and what it says of itself."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import webhooks
from tests.packaging.documents import ROOT
from tests.packaging.installing import clean_environment, run


@pytest.fixture
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def _tracked(folder: str, suffix: str) -> set[str]:
    found = (ROOT / folder).rglob(f"*{suffix}")
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_nothing_else(contents: set[str]) -> None:
    tops = {name.split("/")[0] for name in contents}
    assert tops == {"webhooks", f"django_webhook_delivery-{webhooks.__version__}.dist-info"}
    assert not [name for name in contents if re.search(r"(^|/)tests?/|conftest|\.pyc$", name)]


def test_the_wheel_misses_nothing_of_the_package(contents: set[str]) -> None:
    assert "webhooks/py.typed" in contents
    assert "webhooks/migrations/0001_initial.py" in contents
    assert "webhooks/locale/de/LC_MESSAGES/django.mo" in contents
    for suffix in (".py", ".html", ".css", ".js", ".svg", ".po", ".mo"):
        assert _tracked("webhooks", suffix) <= contents


def test_the_wheel_carries_its_licence_and_its_readme(wheel: Path, contents: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents)
    said = _metadata(wheel)
    assert said["License-Expression"] == "MIT"
    assert said["Description-Content-Type"] == "text/markdown"
    assert str(said.get_payload()).startswith("# django-webhook-delivery")


def test_the_version_is_one(wheel: Path) -> None:
    version = webhooks.__version__
    assert _metadata(wheel)["Version"] == version
    assert wheel.name.startswith(f"django_webhook_delivery-{version}-py3-none-any")
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_only_the_five_libraries_of_the_design_and_what_they_bring_are_required(
    wheel: Path,
) -> None:
    needed = {
        re.split(r"[^\w-]", line)[0].lower()
        for line in _metadata(wheel).get_all("Requires-Dist") or []
        if "extra ==" not in line
    }
    assert needed == {
        "django",
        "djangorestframework",
        "django-q2",
        "django-oauth-toolkit",
        "requests",
        "urllib3",  # of requests
        "cryptography",  # of django-oauth-toolkit
    }


@pytest.mark.parametrize("module", ["webhooks", "webhooks.receiving", "webhooks.exceptions"])
def test_it_is_imported_without_django_and_without_a_warning(module: str, tmp_path: Path) -> None:
    env = clean_environment(tmp_path)
    done = "import sys; assert 'django.db' not in sys.modules; print('imported')"
    said = run(sys.executable, "-W", "error", "-c", f"import {module}; {done}", cwd=ROOT, env=env)
    assert said == "imported\n"


def test_a_public_name_that_needs_django_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from webhooks import emit"],
        cwd=ROOT,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ImproperlyConfigured" in done.stderr or "AppRegistryNotReady" in done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'emitt'"):
        _ = webhooks.emitt
