"""Sealing: keys can be changed, and nothing opens or is sent without them."""

from __future__ import annotations

import json
import pickle
import traceback
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from webhooks.crypto import KeysUnusable, Sealed, is_current, reseal, seal, unseal
from webhooks.exceptions import SecretUnreadable

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


@pytest.fixture
def keys(settings: Any) -> Any:
    def use(*keys: str) -> None:
        settings.WEBHOOKS = {**settings.WEBHOOKS, "ENCRYPTION_KEYS": list(keys)}

    use(OLD)
    return use


@pytest.mark.parametrize(
    "text", ["s", "whsec_abc", "é \U0001f600", "a\x00b", "x" * 100_000, "gAAAA"]
)
def test_what_is_sealed_can_be_read_back(keys: Any, text: str) -> None:
    assert unseal(seal(text)) == text


def test_the_same_text_is_sealed_differently_each_time(keys: Any) -> None:
    assert seal("text") != seal("text")
    assert "text" not in seal("text")


def test_a_new_key_seals_and_the_old_one_still_opens(keys: Any) -> None:
    before = seal("text")
    keys(NEW, OLD)
    after = seal("text")
    assert unseal(before) == unseal(after) == "text"
    keys(NEW)
    assert unseal(after) == "text"
    with pytest.raises(SecretUnreadable):
        unseal(before)


def test_without_its_key_a_text_does_not_open(keys: Any) -> None:
    sealed = seal("text")
    keys(OTHER, NEW)
    with pytest.raises(SecretUnreadable, match="ENCRYPTION_KEYS"):
        unseal(sealed)
    with pytest.raises(SecretUnreadable):
        Sealed(sealed).reveal()


@pytest.mark.parametrize("stored", ["plain", "gAAAAA", "é", "gAAAA" * 40, " "])
def test_what_was_never_sealed_is_not_taken_for_a_secret(keys: Any, stored: str) -> None:
    with pytest.raises(SecretUnreadable):
        unseal(stored)


def test_a_changed_ciphertext_does_not_open(keys: Any) -> None:
    sealed = seal("text")
    with pytest.raises(SecretUnreadable):
        unseal(sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:])


def test_without_keys_nothing_is_sealed_or_opened(keys: Any, settings: Any) -> None:
    sealed = seal("text")
    keys()
    settings.DEBUG = False
    with pytest.raises(ImproperlyConfigured, match="ENCRYPTION_KEYS"):
        seal("text")
    with pytest.raises(ImproperlyConfigured):
        unseal(sealed)


def test_in_debug_a_key_of_the_secret_key_does(keys: Any, settings: Any) -> None:
    keys()
    settings.DEBUG = True
    sealed = seal("text")
    assert unseal(sealed) == "text"
    settings.SECRET_KEY = "another"
    with pytest.raises(SecretUnreadable):
        unseal(sealed)


@pytest.mark.parametrize("key", ["short", "", None, 7, "k" * 44])
def test_a_malformed_key_seals_and_opens_nothing(keys: Any, key: Any) -> None:
    sealed = seal("text")
    keys(OLD, key)
    for act in (seal, unseal):
        with pytest.raises(ImproperlyConfigured, match="no Fernet key") as raised:
            act(sealed)
        assert OLD not in str(raised.value)


def test_an_error_shows_neither_text_nor_ciphertext(keys: Any) -> None:
    sealed = seal("hush-hush")
    keys(NEW)
    with pytest.raises(SecretUnreadable) as raised:
        unseal(sealed)
    shown = "".join(traceback.format_exception(raised.value))
    assert sealed not in shown
    assert "hush" not in shown


def test_a_sealed_text_is_true_when_there_is_one(keys: Any) -> None:
    assert Sealed(seal("text"))
    assert not Sealed("")
    assert Sealed("").reveal() == ""


def test_sealed_texts_are_equal_by_what_is_stored(keys: Any) -> None:
    sealed = seal("text")
    assert Sealed(sealed) == Sealed(sealed)
    assert len({Sealed(sealed), Sealed(sealed)}) == 1
    assert Sealed(sealed) != Sealed(seal("text"))
    assert Sealed(sealed) != sealed
    assert Sealed(sealed) != ""
    assert Sealed("") == ""


def test_a_sealed_text_shows_nothing(keys: Any) -> None:
    value = Sealed(seal("hush-hush"))
    assert repr(value) == str(value) == f"{value}" == "<sealed>"


def test_a_value_is_sealed_anew_under_the_newest_key(keys: Any) -> None:
    before = seal("text")
    assert is_current(before)
    keys(NEW, OLD)
    assert not is_current(before)
    after = reseal(before)
    assert is_current(after)
    keys(NEW)
    assert unseal(after) == "text"
    assert not is_current(before)


@pytest.mark.parametrize("stored", ["plain", "gAAAAA", "é", ""])
def test_what_does_not_open_is_not_sealed_anew(keys: Any, stored: str) -> None:
    assert not is_current(stored)
    with pytest.raises(SecretUnreadable):
        reseal(stored)


def test_a_key_in_place_of_the_list_is_no_list_of_letters(settings: Any) -> None:
    settings.WEBHOOKS = {**settings.WEBHOOKS, "ENCRYPTION_KEYS": OLD}
    with pytest.raises(KeysUnusable, match="no Fernet key"):
        seal("text")


def test_a_sealed_text_is_no_json(keys: Any) -> None:
    with pytest.raises(TypeError):
        json.dumps(Sealed(seal("hush-hush")))


def test_a_sealed_text_stays_sealed_where_it_is_pickled(keys: Any) -> None:
    packed = pickle.dumps(Sealed(seal("hush-hush")), protocol=4)
    assert b"hush" not in packed
    assert pickle.loads(packed).reveal() == "hush-hush"
