from pathlib import Path

from tests.example.running import run_cases


def test_the_tie_out_notices_what_is_wrong(tmp_path: Path) -> None:
    run_cases("tieout_cases.py", tmp_path / "home")
