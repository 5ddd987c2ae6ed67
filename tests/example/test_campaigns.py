from pathlib import Path

from tests.example.running import run_cases


def test_the_push_dashboard_and_the_simulator(tmp_path: Path) -> None:
    more = ("simulator_cases.py", "figures_cases.py", "translation_cases.py")
    run_cases("dashboard_cases.py", tmp_path / "home", *more)
