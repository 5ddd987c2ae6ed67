"""A subscriber's endpoint: what a stranger's server does with what arrives. It may break."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from standardwebhooks.webhooks import WebhookVerificationError

from tests.e2e.verifying import by_standardwebhooks
from tests.world import Answer, Received, Receiver, until


@dataclass(frozen=True)
class Message:
    """A message that was authentic and that was not known yet."""

    id: str
    headers: dict[str, str]
    body: bytes

    @property
    def type(self) -> str:
        return str(json.loads(self.body)["type"])


class Endpoint:
    """Listens on loopback. secrets: every one of them may have signed. broken: it answers 500."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self.broken = False
        self.handshakes: list[str] = []
        self.inbox: list[Message] = []
        self.seen: list[str] = []  # the webhook-id of every authentic POST, repeats too
        self.forged = 0
        self._server = Receiver(self._answer)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def posts(self) -> int:
        """How many requests came, whatever they got."""
        return len(self._server.posts)

    def _answer(self, post: Received) -> Answer:
        if "x-hook-secret" in post.headers:
            # REST Hooks: who echoes this header wants what follows.
            self.handshakes.append(post.headers["x-hook-secret"])
            return Answer(headers={"X-Hook-Secret": post.headers["x-hook-secret"]})
        if self.broken:
            return Answer(status=500, body=b"the database is full")
        if not any(self._signed(post, secret) for secret in self.secrets):
            self.forged += 1
            return Answer(status=400)
        # It may come twice: what is known already is acknowledged, and nothing is done.
        if post.id not in self.seen:
            self.inbox.append(Message(post.id, post.headers, post.body))
        self.seen.append(post.id)
        return Answer(status=204, body=b"")

    @staticmethod
    def _signed(post: Received, secret: str) -> bool:
        try:
            by_standardwebhooks(secret, post.headers, post.body)
        except WebhookVerificationError:
            return False
        return True

    def wait_for(
        self, wanted: Callable[[list[Message]], Any], what: str, timeout: float = 30
    ) -> None:
        """Wait until the inbox is as wanted. Fails the test when it does not come to that."""
        until(lambda: bool(wanted(self.inbox)), timeout, what)

    def take(self, count: int, timeout: float = 30) -> list[Message]:
        """Wait for so many messages, take them out of the inbox, and return them."""
        arrived = f"the arrival of {count} messages"
        self.wait_for(lambda inbox: len(inbox) >= count, arrived, timeout)
        assert len(self.inbox) == count, [message.type for message in self.inbox]
        taken, self.inbox = self.inbox, []
        return taken

    def close(self) -> None:
        self._server.close()
