from pathlib import Path

from tests.example.running import run_cases


def test_the_push_dashboard_and_the_simulator(tmp_path: Path) -> None:
    run_cases("dashboard_cases.py", tmp_path / "home", "simulator_cases.py", "figures_cases.py")
