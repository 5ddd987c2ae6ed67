"""The requests of an n8n trigger node: ``checkExists``, ``create`` and ``delete``.

n8n calls ``checkExists`` whenever a workflow is activated, ``create`` where that says false, and
``delete`` as it is turned off; the id is kept in the workflow's static data between them.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.api.conftest import Speaker
from tests.world import Receiver, deliver, emit_orders

EVENTS = ["order.paid", "order.shipped"]


class Node:
    """A trigger node, as its TypeScript would be. data: the workflow's static data."""

    def __init__(self, api: Speaker, url: str) -> None:
        self.api = api
        self.url = url
        self.data: dict[str, Any] = {}

    def check_exists(self) -> bool:
        """Look for its own URL and events; keep the id."""
        path = f"subscriptions/?callback_url={quote(self.url, safe='')}"
        while path:
            page = self.api.get(path)
            assert page.status_code == 200
            for each in page.json()["results"]:
                if each["callback_url"] == self.url and set(EVENTS) <= set(each["event_types"]):
                    self.data["webhookId"] = each["id"]
                    return True
            path = page.json()["next"]
        return False

    def create(self) -> bool:
        body = {"url": self.url, "events": EVENTS, "description": "n8n"}
        answer = self.api.post("subscriptions/", body)
        if answer.status_code != 201 or "id" not in answer.json():
            return False
        self.data["webhookId"] = answer.json()["id"]
        self.data["webhookSecret"] = answer.json()["secret"]
        return True

    def delete(self) -> bool:
        """False where n8n's HTTP helper throws: for anything but a 2xx."""
        answer = self.api.delete(f"subscriptions/{self.data['webhookId']}/")
        if not 200 <= answer.status_code < 300:
            return False
        self.data.clear()
        return True


@pytest.fixture
def node(api: Speaker, receiver: Receiver) -> Node:
    return Node(api, f"{receiver.url}?path=a%20b&token=%C3%BC%2B+")


def test_a_workflow_is_turned_on_and_off(node: Node, receiver: Receiver) -> None:
    assert not node.check_exists()
    assert node.create()
    assert node.check_exists()
    emit_orders(1, node.api.requester)
    deliver()
    assert len(receiver.posts) == 1
    assert node.delete()
    assert node.data == {}
    assert not node.check_exists()


def test_one_that_was_suspended_still_exists(node: Node) -> None:
    node.create()
    node.api.post(f"subscriptions/{node.data['webhookId']}/suspend/")
    assert node.check_exists()


def test_another_workflows_url_is_not_its_own(node: Node, api: Speaker, receiver: Receiver) -> None:
    Node(api, f"{receiver.url}?path=other").create()
    assert not node.check_exists()


def test_it_is_found_among_many(node: Node, api: Speaker, receiver: Receiver) -> None:
    node.create()
    for _ in range(60):
        api.subscribe(node.url, event_types=["order.paid"])
    id = node.data.pop("webhookId")
    assert node.check_exists()
    assert node.data["webhookId"] == id


def test_deleting_what_is_not_there_is_404_and_false(node: Node) -> None:
    node.data["webhookId"] = "sub_" + "0" * 32
    assert not node.delete()


def test_others_do_not_see_it(node: Node, stranger: Speaker) -> None:
    node.create()
    other = Node(stranger, node.url)
    assert not other.check_exists()
    other.data["webhookId"] = node.data["webhookId"]
    assert not other.delete()
    assert node.check_exists()
