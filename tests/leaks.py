"""A hunter that goes along with every test: what was sealed must never be found in a log.

What is encrypted while a test runs is remembered, as is the text of every log record, of whichever
logger and level, whether anybody listens or not. After the test the records are searched. Nobody
notices: what a logger would not have handled is not handled.
"""

from __future__ import annotations

import base64
import json
import logging
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import MultiFernet

#: Shorter ones are found in any text; so are those of fewer different characters: an invented
#: secret of zeros stands in an invented id.
SHORTEST, FEWEST = 8, 3
#: Those of the tests before stay in memory for a while: their threads and fixtures may still talk.
REMEMBERED = 512

#: Of an exception's causes so many are looked at; they may go round in circles.
DEEPEST = 20


def forms(text: str) -> Iterator[str]:
    """What must not be seen of a text that is sealed: itself, and what it is made of."""
    yield text
    try:
        inner = json.loads(text)
    except ValueError:
        inner = None
    if isinstance(inner, dict):
        yield from (str(value) for value in inner.values())
    if text.startswith("whsec_"):
        yield text.removeprefix("whsec_")
    elif ":" in text:
        yield base64.b64encode(text.encode()).decode()


class Hunter:
    """A plugin of pytest. heard: logger and text of the records since the last search."""

    def __init__(self) -> None:
        self.secrets: deque[str] = deque(maxlen=REMEMBERED)
        self.heard: list[tuple[str, str]] = []

    def remember(self, text: str) -> None:
        self.secrets.extend(
            form for form in forms(text) if len(form) >= SHORTEST and len(set(form)) >= FEWEST
        )

    def hear(self, record: logging.LogRecord) -> None:
        """Keep a record's text, now: its arguments may change, and a traceback keeps things alive.

        Of a traceback the messages count; the rest is source code.
        """
        try:
            text = record.getMessage()
        except Exception:
            text = f"{record.msg} {record.args}"
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        for _ in range(DEEPEST):
            if error is None:
                break
            text += f"\n{error!r} {error} {getattr(error, '__notes__', '')}"
            error = error.__cause__ or error.__context__
        self.heard.append((record.name, text))

    def search(self) -> None:
        """Raise AssertionError for what was heard and should not have been; forget the rest."""
        heard, self.heard = self.heard, []
        if not (heard and self.secrets):
            return
        everything = "\n".join(text for _name, text in heard)
        for secret in set(self.secrets):
            if secret in everything:
                names = sorted({name for name, text in heard if secret in text})
                shown = f"{secret[:4]}… ({len(secret)} characters)"
                raise AssertionError(f"a secret was logged by {', '.join(names)}: {shown}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        done = yield
        self.search()
        return done

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Any:
        done = yield
        self.search()
        return done


def install(config: pytest.Config) -> Hunter:
    """Hunt from now on, in this process."""
    from webhooks import crypto

    hunter = Hunter()

    class Remembering(MultiFernet):
        def encrypt_at_time(self, msg: bytes, current_time: int) -> bytes:
            hunter.remember(msg.decode())
            return super().encrypt_at_time(msg, current_time)

    crypto.MultiFernet = Remembering  # type: ignore[misc]
    crypto._build.cache_clear()

    is_enabled_for, handle = logging.Logger.isEnabledFor, logging.Logger.handle

    def is_enabled_for_all(logger: logging.Logger, level: int) -> bool:
        return level >= logging.DEBUG or is_enabled_for(logger, level)

    def hear_and_handle(logger: logging.Logger, record: logging.LogRecord) -> None:
        hunter.hear(record)
        if is_enabled_for(logger, record.levelno):
            handle(logger, record)

    logging.Logger.isEnabledFor = is_enabled_for_all  # type: ignore[method-assign]
    logging.Logger.handle = hear_and_handle  # type: ignore[method-assign]
    config.pluginmanager.register(hunter, "leaks")
    return hunter
