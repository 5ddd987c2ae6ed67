from pathlib import Path

from tests.example.running import run_cases


def test_the_simulated_provider_records_and_emits_together(tmp_path: Path) -> None:
    run_cases("provider_cases.py", tmp_path / "home")
