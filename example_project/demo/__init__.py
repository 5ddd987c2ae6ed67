"""What ``manage.py demo`` is made of.

``stopping`` hears Ctrl-C, ``processes`` starts and ends children (``guard`` ends them when even the
demo itself was killed), ``services`` are the database, the cluster and the web server,
``subscribers`` the other side, which subscribes through ``api``; ``once`` and ``live`` are the two
ways to run, ``figures`` and ``tieout`` count, ``console`` prints.
"""
