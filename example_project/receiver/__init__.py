"""A subscriber: a small HTTP server that receives signed webhooks.

It stands for somebody else's program, so it runs in its own process, imports neither Django nor
``webhooks``, and verifies with the PyPI package ``standardwebhooks``. It does what a subscriber
should: verify, de-duplicate by ``webhook-id``, answer at once. It can be told to do what
subscribers do as well: fail, hang, or ask for less.
"""
