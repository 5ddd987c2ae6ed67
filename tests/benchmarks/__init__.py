"""Measurements, not tests: each thing beside a reference of the same run, all in one table.

    python -m tests.benchmarks [--only NAME …] [--quick] [--json PATH]
                               [--database postgres|sqlite] [--transport requests|curl]

The names are those of the modules here that have a ``measure()``; each says in its docstring what
it measures, what the reference is, and what a good figure is. ``python -m
tests.benchmarks.breakdown`` shows where the engine spends its CPU. See ``docs/benchmarks.md``.

The command makes a database of its own and drops it, and speaks to loopback only, but for the
installation of the references.
"""
