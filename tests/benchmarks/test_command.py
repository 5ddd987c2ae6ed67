"""The command works: it measures, prints one table, and writes the same figures as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.harness import ROOT, Figure, alone, compared, percentile


def test_the_command_measures_and_tells_people_and_programs(tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks", "--only", "emit"]
    done = subprocess.run(
        [*command, "--quick", "--json", str(report)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "WEBHOOKS_TEST_DB_NAME"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    told = json.loads(report.read_text())
    assert told["failed"] == []
    assert told["options"]["quick"] is True
    cases = [figure["case"] for figure in told["figures"]]
    assert "emit(), own transaction, beside objects.create()" in cases
    assert all(case in done.stdout for case in cases)
    assert all(figure["value"] >= 0 for figure in told["figures"])


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # The second round was disturbed, both sides of it: that is no difference between them.
    figure = compared("a case", "ms", [2.0, 20.0, 2.2], [1.0, 10.0, 1.0], at_most=2.0)
    assert figure.ratio == 2.0
    assert figure.good is True
    assert compared("a case", "per s", [4.0], [1.0], at_least=5.0).good is False


def test_a_figure_without_a_reference_is_judged_by_itself() -> None:
    assert alone("a case", "tasks", [49, 51, 60], at_most=50) == Figure(
        "a case", "tasks", value=51, wanted="≤ 50", good=False
    )


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([5.0, 1.0, 4.0, 2.0, 3.0], 0.5) == 3.0
    assert percentile([1.0] * 94 + [9.0] * 6, 0.95) == 9.0
