"""A worker in virtual time: real shares and pacing, thousands of lanes, no sockets, no database.

``python -m tests.simulator`` prints its figures; ``docs/pacing.md`` explains them.
"""
