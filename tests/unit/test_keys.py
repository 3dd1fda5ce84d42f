"""API keys in the rules: what they are checked for, and that a removed one is gone."""

from typing import Any

import pytest

from events.commands import AddApiKey, RemoveApiKey
from events.events import ApiKeyAdded, ApiKeyRemoved, Event, Rejected
from events.values import KeyKind, KeyPermission
from exchange.aggregate.administration import KEYS_MAX
from exchange.aggregate.image import restore, take_image
from tests.venue import Venue

NETWORKS = "10.0.0.0/8 ::1/128"


def hmac_key(account_id: int, name: str = "key", **changes: Any) -> AddApiKey:
    """Return the command that adds an HMAC key."""
    return AddApiKey(**{"account_id": account_id, "api_key": name, "sealed_secret": b"sealed"} | changes)


def answer(venue: Venue, command: Any) -> Event:
    """Send a command; return the first event of its answer."""
    return venue.send(command)[0]


def test_a_key_is_kept_with_its_terms_and_survives_an_image() -> None:
    """What the event says of a key is what the state knows of it, also when read back."""
    venue = Venue()
    alice = venue.account()
    added = answer(
        venue,
        AddApiKey(
            account_id=alice.account_id,
            api_key="key",
            kind=KeyKind.ED25519,
            public_key=bytes(32),
            permissions=KeyPermission.READ.value | KeyPermission.WITHDRAW.value,
            networks=NETWORKS,
        ),
    )
    assert isinstance(added, ApiKeyAdded)
    assert added == venue.state.accounts[alice.account_id].api_keys["key"]
    assert {"key": alice.account_id} == venue.state.key_owners
    image = take_image(venue.state)
    again = restore(image.body)
    assert added == again.accounts[alice.account_id].api_keys["key"]
    assert image.digest == again.digest()


def test_a_removed_key_is_nobodys() -> None:
    """Its owner is forgotten; removing it again, or another's, is refused."""
    venue = Venue()
    alice, bob = venue.account(), venue.account()
    answer(venue, hmac_key(alice.account_id))
    foreign = answer(venue, RemoveApiKey(account_id=bob.account_id, api_key="key"))
    assert isinstance(foreign, Rejected)
    removed = answer(venue, RemoveApiKey(account_id=alice.account_id, api_key="key"))
    assert ApiKeyRemoved(account_id=alice.account_id, api_key="key") == removed
    assert {} == venue.state.key_owners
    again = answer(venue, RemoveApiKey(account_id=alice.account_id, api_key="key"))
    assert isinstance(again, Rejected)
    assert "UNKNOWN_KEY" == again.code


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"api_key": ""}, "BAD_KEY", "api_key"),
        ({"api_key": "x" * 65}, "BAD_KEY", "api_key"),
        ({"permissions": 0}, "BAD_KEY", "permissions"),
        ({"permissions": 16}, "BAD_KEY", "permissions"),
        ({"permissions": -1}, "BAD_KEY", "permissions"),
        ({"sealed_secret": b""}, "BAD_KEY", "sealed_secret"),
        ({"sealed_secret": bytes(257)}, "BAD_KEY", "sealed_secret"),
        ({"public_key": bytes(32)}, "BAD_KEY", "sealed_secret"),
        ({"kind": KeyKind.ED25519, "public_key": bytes(32)}, "BAD_KEY", "public_key"),
        ({"kind": KeyKind.ED25519, "sealed_secret": b"", "public_key": bytes(31)}, "BAD_KEY", "public_key"),
        ({"networks": "1" * 1_001}, "BAD_KEY", "networks"),
        ({"account_id": 0}, "RESERVED_ACCOUNT", "account_id"),
        ({"account_id": 99}, "UNKNOWN_ACCOUNT", "account_id"),
    ],
)
def test_a_key_that_cannot_be_is_refused(changes: dict[str, Any], code: str, field: str) -> None:
    """The reason names the field, and nothing is changed."""
    venue = Venue()
    alice = venue.account()
    refused = answer(venue, hmac_key(**({"account_id": alice.account_id} | changes)))
    assert isinstance(refused, Rejected), refused
    assert (code, field) == (refused.code, refused.reason.partition(":")[0])
    assert {} == venue.state.key_owners


def test_an_account_has_only_so_many_keys() -> None:
    """A further one is refused until another is removed."""
    venue = Venue()
    alice = venue.account()
    for n in range(KEYS_MAX):
        assert isinstance(answer(venue, hmac_key(alice.account_id, f"key {n}")), ApiKeyAdded)
    refused = answer(venue, hmac_key(alice.account_id, "one more"))
    assert isinstance(refused, Rejected)
    assert "TOO_MANY_KEYS" == refused.code
    answer(venue, RemoveApiKey(account_id=alice.account_id, api_key="key 7"))
    assert isinstance(answer(venue, hmac_key(alice.account_id, "one more")), ApiKeyAdded)
