"""All benchmarks: one command, one table; see the package's docstring."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.child import call
from tests.benchmarks.database import own_database
from tests.benchmarks.harness import Options, left_out, machine, show
from tests.benchmarks.sending import TRANSPORTS, missing

#: In the order of the table; each is a module here with a ``measure(options)``.
BENCHMARKS = (
    *("senders", "emit", "fanout", "drain", "snapshot", "slow", "hanging", "backlog"),
    *("batches", "workers", "memory", "pages", "latency", "references"),
)
#: --quick leaves them out, unless they are asked for by name.
LONG = ("references",)
#: Seconds for one benchmark.
TIMEOUT = 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="small sizes, three rounds")
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="sqlite")
    parser.add_argument("--transport", choices=tuple(TRANSPORTS), default="requests")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there too")
    asked = parser.parse_args()
    if why := missing(asked.transport):
        parser.error(why)
    os.environ["WEBHOOKS_TEST_DB"] = asked.database
    options = Options(asked.database, asked.transport, asked.quick)
    began = machine()
    rows, failed = [], []
    with own_database():
        for name in asked.only or BENCHMARKS:
            if asked.quick and not asked.only and name in LONG:
                rows.append({"benchmark": name} | asdict(left_out("all", "too long for --quick")))
                continue
            try:
                rows += _run(name, options)
            except (RuntimeError, TimeoutError) as error:
                failed.append(name)
                rows.append({"benchmark": name, "case": "FAILED", "note": str(error)})
    figures = {"machine": began, "options": asdict(options), "figures": rows, "failed": failed}
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1))
    _print(began, options, rows)
    sys.exit(bool(failed))


def _run(name: str, options: Options) -> list[dict[str, Any]]:
    """One benchmark in a process of its own, away from the core of what it measures."""
    print(f"{name} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    found: list[dict[str, Any]] = call(
        "tests.benchmarks.__main__:figures",
        core=None,
        timeout=TIMEOUT,
        name=name,
        options=asdict(options),
    )
    print(f"{name} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return [{"benchmark": name, **figure} for figure in found]


def figures(name: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """What a benchmark found, as rows."""
    module = importlib.import_module(f"tests.benchmarks.{name}")
    return [asdict(figure) for figure in module.measure(Options(**options))]


def _print(began: dict[str, Any], options: Options, rows: list[dict[str, Any]]) -> None:
    said = ", ".join(f"{name} {value}" for name, value in (began | asdict(options)).items())
    print(f"{said}\nx is the median of the rounds' ratios, value to reference")
    columns = ("benchmark", "case", "measure", "value", "reference", "ratio", "wanted", "good")
    show([{column: row.get(column) for column in columns} for row in rows])
    for note in dict.fromkeys(
        f"{row['benchmark']}, {row['case']}: {row['note']}" for row in rows if row.get("note")
    ):
        print(note)


if __name__ == "__main__":
    main()
