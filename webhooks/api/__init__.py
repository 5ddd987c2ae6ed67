"""The RESThooks API: what a subscriber's developer can do, over HTTP, alone.

Nothing is decided here: views read and answer, and call the same functions as the admin does. No
setting of the host's REST framework reaches in; what a view needs, it says itself.
"""
