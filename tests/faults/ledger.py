"""What receivers saw, in their own words: endpoints that fail and hang by chance, and a ledger."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass

from tests.world import Answer, Received, Receiver
from webhooks.exceptions import InvalidSignature
from webhooks.formats.signing import generate_secret
from webhooks.receiving import verify

#: Kind -> shares of: a failure, a hang, a slow answer.
KINDS = {
    "good": (0.0, 0.0, 0.0),
    "slow": (0.0, 0.0, 1.0),
    "flaky": (0.3, 0.0, 0.1),
    "hanging": (0.05, 0.25, 0.1),
    "broken": (0.9, 0.05, 0.0),
}


@dataclass(eq=False)
class Post:
    """One POST. acknowledged: its 2xx was given at once, so a living sender heard it.

    lost, held: it was open when its sender was killed, or stopped.
    """

    subscription: str
    id: str
    digest: bytes
    at: float
    acknowledged: bool
    lost: bool = False
    held: bool = False


@dataclass
class Endpoint:
    kind: str
    path: str
    secret: str
    subscription: str = ""
    requester: str = ""


class Ledger:
    """A server with many endpoints, and every POST that came to them."""

    def __init__(self, seed: int, *, timeout: float) -> None:
        """timeout: of a POST, in seconds; whoever hangs does so for longer."""
        self.endpoints: dict[str, Endpoint] = {}
        self.posts: list[Post] = []
        self.forged = 0
        #: From now on, everybody answers at once.
        self.calm = False
        self._timeout = timeout
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self.receiver = Receiver(self._answer)

    def add(self, kind: str) -> tuple[Endpoint, str]:
        """A new endpoint, and its URL."""
        path = f"/in/{len(self.endpoints)}"
        self.endpoints[path] = Endpoint(kind, path, generate_secret())
        return self.endpoints[path], self.receiver.url.removesuffix("/in") + path

    def close(self) -> None:
        self.receiver.close()

    def _answer(self, post: Received) -> Answer:
        endpoint = self.endpoints[post.path]
        digest = hashlib.sha256(post.body).digest()
        with self.receiver.arrived:
            self.receiver.posts.clear()  # kept here, and without their bodies
        try:
            genuine = verify(post.body, post.headers, endpoint.secret)["id"] == post.id
        except InvalidSignature:
            genuine = False
        with self._lock:
            answer = self._choose(endpoint)
            self.forged += not genuine
            acknowledged = answer.status == 200
            self.posts.append(Post(endpoint.subscription, post.id, digest, post.at, acknowledged))
        return answer

    def _choose(self, endpoint: Endpoint) -> Answer:
        failure, hang, slow = (0.0, 0.0, 0.0) if self.calm else KINDS[endpoint.kind]
        drawn = self._rng.random()
        if drawn < failure:
            return Answer(status=self._rng.choice((500, 503, 404, 302)))
        if drawn < failure + hang:
            return Answer(status=500, after=2.5 * self._timeout)
        if drawn < failure + hang + slow:
            return Answer(after=0.25 * self._timeout)
        return Answer()

    # What it says

    def since(self, moment: float) -> list[Post]:
        """The POSTs that came since then (unix seconds)."""
        with self._lock:
            first = len(self.posts)
            while first and self.posts[first - 1].at >= moment - 1:
                first -= 1  # threads write them down almost in order
            return [post for post in self.posts[first:] if post.at >= moment]

    def acknowledged(self) -> set[tuple[str, str]]:
        """Each (subscription, webhook-id) that was answered with success."""
        return {(post.subscription, post.id) for post in self.posts if post.acknowledged}

    def repeats(self) -> int:
        """POSTs that came after their webhook-id had been acknowledged: duplicates."""
        done: set[tuple[str, str]] = set()
        repeats = 0
        for post in sorted(self.posts, key=lambda post: post.at):
            key = (post.subscription, post.id)
            repeats += key in done
            if post.acknowledged:
                done.add(key)
        return repeats

    def counts(self) -> Counter[tuple[str, str]]:
        return Counter((post.subscription, post.id) for post in self.posts)

    def differing(self) -> list[str]:
        """The webhook-ids under which different bytes came."""
        digests: dict[tuple[str, str], set[bytes]] = defaultdict(set)
        for post in self.posts:
            digests[post.subscription, post.id].add(post.digest)
        return [webhook_id for (_, webhook_id), found in digests.items() if len(found) > 1]
