"""An account's own keys, for a key that may administer them."""

from typing import get_args

import msgspec

from events.commands import RemoveApiKey
from events.values import permission_names
from exchange.intake.access import permissions_of
from exchange.intake.admin_keys import KeyTerms, Permission, check_terms, new_key
from exchange.intake.endpoint import Values
from exchange.intake.foldex.health import Shape
from exchange.intake.service import Intake

PERMISSIONS: tuple[str, ...] = get_args(Permission)


class Key(Shape, frozen=True):
    """A key, what it may do and from where (no networks: from anywhere)."""

    api_key: str
    kind: str
    permissions: list[str]
    networks: list[str]


class MadeKey(Shape, frozen=True, omit_defaults=True):
    """A new key; the secret of an HMAC key is shown this once."""

    api_key: str
    secret: str | None = None


class RemovedKey(Shape, frozen=True):
    """A key that does nothing any more."""

    api_key: str


async def keys(intake: Intake, account_id: int, values: Values) -> list[Key]:
    """Return the account's keys, without secrets."""
    return [
        Key(
            api_key=added.api_key,
            kind=added.kind.name,
            permissions=permission_names(permissions_of(added)),
            networks=added.networks.split(),
        )
        for added in intake.account(account_id).api_keys.values()
    ]


async def add_key(intake: Intake, account_id: int, values: Values) -> MadeKey:
    """Give the account a further key; `permissions` and `networks` are separated by commas."""
    terms = KeyTerms(
        permissions=values["permissions"],
        networks=tuple(values.get("networks", "").replace(",", " ").split()),
        public_key=values.get("publicKey", ""),
    )
    check_terms(terms)
    key = new_key(intake, account_id, terms)
    await intake.ask(key.command)
    return MadeKey(api_key=key.shown["api_key"], secret=key.shown.get("secret"))


async def remove_key(intake: Intake, account_id: int, values: Values) -> RemovedKey:
    """End what a key of the account may do, the one that signs this included."""
    await intake.ask(RemoveApiKey(account_id=account_id, api_key=values["apiKey"]))
    return RemovedKey(api_key=values["apiKey"])


def permissions(value: str) -> tuple[Permission, ...]:
    """Read names of permissions, separated by commas."""
    return msgspec.convert(tuple(value.split(",")), tuple[Permission, ...])
