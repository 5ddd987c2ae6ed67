"""A subscriber: a small HTTP server that receives signed webhooks.

It stands for somebody else's program, so it runs in its own process, without Django, and verifies
with the PyPI package ``standardwebhooks``: an independent witness of what the sender signs. What is
authentic it dispatches with ``webhooks.receiving``, as any subscriber written in Python may. It
does what a subscriber should: verify, de-duplicate by ``webhook-id``, answer at once. It can be
told to do what subscribers do as well: fail, hang, or ask for less. Its dashboard, at ``/``, shows
what digests of counts told beside what it counted from single events.
"""
