"""What all benchmarks share: a core for each side, CPU and memory, interleaved rounds, one table.

Absolute figures say little on a machine that others use too. So every figure stands beside a
reference of the same run, both are measured in turns, and what counts is the median of their
ratios.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
#: How often each thing is measured, in turns with its reference.
ROUNDS, QUICK_ROUNDS = 5, 1
#: About 1 KB as a body, as a push event has.
DATA = {
    "campaign": 7,
    "push": "0b8f4a0e-6d0f-4d55-9d2c-1f0a3f6f2b9e",
    "device": {"platform": "android", "locale": "de-AT", "token": "t" * 160},
    "link": "https://shop.example/offers/spring?utm_campaign=7",
    "text": "Spring has come. " * 30,
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was asked for. quick: sizes that end within seconds."""

    database: str = "sqlite"
    transport: str = "requests"
    quick: bool = False

    @property
    def rounds(self) -> int:
        return QUICK_ROUNDS if self.quick else ROUNDS


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    value and reference are medians in the unit that ``measure`` names; ratio is the median of the
    rounds' own ratios (value to reference). wanted: what is good, as text; good: whether it is so,
    None where nothing is asked. note: what one must know to read it, or why it was left out.
    """

    case: str
    measure: str
    value: float | None = None
    reference: float | None = None
    ratio: float | None = None
    wanted: str = ""
    good: bool | None = None
    note: str = ""


def compared(
    case: str,
    measure: str,
    values: Sequence[float],
    references: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    note: str = "",
) -> Figure:
    """A figure beside its reference, both measured in each round; the limits are the ratio's."""
    ratio = median(
        value / reference for value, reference in zip(values, references, strict=True) if reference
    )
    return _judged(
        Figure(case, measure, median(values), median(references), ratio, note=note),
        ratio,
        at_least,
        at_most,
        "x ",
    )


def alone(
    case: str,
    measure: str,
    values: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    note: str = "",
) -> Figure:
    """A figure that is counted, or whose limit is absolute: statements, milliseconds of CPU."""
    value = median(values)
    return _judged(Figure(case, measure, value, note=note), value, at_least, at_most, "")


def left_out(case: str, why: str) -> Figure:
    return Figure(case, "left out", note=why)


def _judged(
    figure: Figure, measured: float, at_least: float | None, at_most: float | None, sign: str
) -> Figure:
    wanted, good = "", None
    if at_least is not None:
        wanted, good = f"≥ {sign}{at_least:g}", measured >= at_least
    elif at_most is not None:
        wanted, good = f"≤ {sign}{at_most:g}", measured <= at_most
    return Figure(**asdict(figure) | {"wanted": wanted, "good": good})


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


# Cores


def worker_core() -> set[int]:
    """The core of what is measured; all cores where there is one only."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[-1]}


def other_cores() -> set[int]:
    """The cores of all else: receiver, database, the benchmark itself."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[:-1]) or set(cores)


def pin(pid: int, cores: set[int]) -> None:
    """Keep a process to these cores, if it is ours to move (a database server may not be)."""
    with suppress(PermissionError, ProcessLookupError):
        os.sched_setaffinity(pid, cores)


# CPU and memory, from /proc (Linux)


def cpu_of(pid: int) -> float | None:
    """Seconds of CPU, user and system, that a process has used; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def served_by(pid: int) -> float:
    """The same to the nanosecond, for a process of one thread, as PostgreSQL's are."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def children_of(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += parents.get(each, ())
    return found


def memory() -> float:
    """MiB of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


class Meter:
    """Seconds and CPU seconds of this process while the context lasts."""

    seconds = 0.0
    cpu = 0.0

    def __enter__(self) -> Self:
        self._used = _own_cpu()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self.cpu = _own_cpu() - self._used


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# The table


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print an aligned table of rows that have the same columns."""
    columns = list(rows[0])
    texts = [columns, *([_text(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in texts) for place in range(len(columns))]
    numeric = [
        any(isinstance(row[column], int | float) for row in rows)
        and not any(isinstance(row[column], str | bool) for row in rows)
        for column in columns
    ]
    for line in texts:
        cells = [
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, numeric, strict=True)
        ]
        print("  ".join(cells).rstrip())


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "pinned": worker_core() != other_cores(),
        "load": os.getloadavg()[0],
    }


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
