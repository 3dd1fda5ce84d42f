"""API keys on the administrator's listener: made, listed, removed."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from events.commands import AddApiKey, RemoveApiKey
from events.events import ApiKeyAdded
from events.values import KeyKind, KeyPermission, permission_names
from exchange.aggregate.administration import NETWORKS_CHARS_MAX
from exchange.intake.access import permissions_of
from exchange.intake.errors import ApiError
from exchange.intake.keys import new_api_key, new_secret, read_public_key
from exchange.intake.networks import parse_networks
from exchange.intake.service import Intake

BAD_BODY = -1130
PUBLIC_KEY_CHARS_MAX = 1_000

AccountId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Permission = Literal["read", "trade", "withdraw", "administer"]
PERMISSIONS_DEFAULT: tuple[Permission, ...] = ("read", "trade")


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the request bodies. Amounts and prices are decimal strings."""


class KeyTerms(Form, frozen=True):
    """What a key may do beside reading, and from where.

    With a `public_key` (PEM or base64) requests are signed by Ed25519.
    """

    permissions: tuple[Permission, ...] = PERMISSIONS_DEFAULT
    networks: tuple[str, ...] = ()
    public_key: Annotated[str, msgspec.Meta(max_length=PUBLIC_KEY_CHARS_MAX)] = ""


class KeyForm(KeyTerms, frozen=True, kw_only=True):
    """Give an account a further key."""

    account_id: AccountId


class AccountKeysForm(Form, frozen=True):
    """Ask for the keys of an account."""

    account_id: AccountId


class KeyRemovalForm(Form, frozen=True):
    """End what a key of an account may do."""

    account_id: AccountId
    api_key: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """The command that adds a key, and what its owner is shown: its secret once, never again."""

    command: AddApiKey
    shown: dict[str, Any]


def check_terms(terms: KeyTerms) -> None:
    """Refuse terms that no key can have.

    Raises:
        ApiError: the message names the field.
    """
    if not terms.permissions:
        raise ApiError(BAD_BODY, "permissions: a key must have one at least")
    try:
        parse_networks(_networks(terms))
    except ValueError as error:
        raise ApiError(BAD_BODY, f"networks: {error}") from None
    if len(_networks(terms)) > NETWORKS_CHARS_MAX:
        raise ApiError(BAD_BODY, f"networks: at most {NETWORKS_CHARS_MAX} characters in all")
    if terms.public_key:
        try:
            read_public_key(terms.public_key)
        except ValueError as error:
            raise ApiError(BAD_BODY, f"public_key: not an Ed25519 public key: {error}") from None


def new_key(intake: Intake, account_id: int, terms: KeyTerms) -> NewKey:
    """Return a fresh key for an account under terms that were checked."""
    api_key = new_api_key()
    permissions = sum(KeyPermission[name.upper()].value for name in dict.fromkeys(terms.permissions))
    shown: dict[str, Any] = {"api_key": api_key}
    if terms.public_key:
        command = AddApiKey(
            account_id=account_id,
            api_key=api_key,
            kind=KeyKind.ED25519,
            public_key=read_public_key(terms.public_key),
            permissions=permissions,
            networks=_networks(terms),
        )
        return NewKey(command, shown)
    secret = new_secret()
    shown["secret"] = secret.reveal().decode()
    command = AddApiKey(
        account_id=account_id,
        api_key=api_key,
        sealed_secret=intake.keys.seal(api_key, secret),
        permissions=permissions,
        networks=_networks(terms),
    )
    return NewKey(command, shown)


async def add_key(intake: Intake, form: KeyForm) -> object:
    """Give an account a further key."""
    check_terms(form)
    key = new_key(intake, form.account_id, form)
    await intake.ask(key.command)
    return {"account_id": form.account_id, **key.shown}


async def remove_key(intake: Intake, form: KeyRemovalForm) -> object:
    """End what a key may do."""
    await intake.ask(RemoveApiKey(account_id=form.account_id, api_key=form.api_key))
    return {"account_id": form.account_id, "api_key": form.api_key, "removed": True}


async def list_keys(intake: Intake, form: AccountKeysForm) -> object:
    """Return what is known of an account's keys; secrets never are."""
    account = intake.state.accounts.get(form.account_id)
    if account is None:
        raise ApiError(BAD_BODY, "account_id: no such account")
    return {
        "account_id": form.account_id,
        "keys": [key_row(added) for added in account.api_keys.values()],
    }


def key_row(added: ApiKeyAdded) -> dict[str, Any]:
    """Return a key as its owner may see it."""
    return {
        "api_key": added.api_key,
        "kind": added.kind.name.lower(),
        "permissions": permission_names(permissions_of(added)),
        "networks": added.networks.split(),
    }


def _networks(terms: KeyTerms) -> str:
    return " ".join(" ".join(terms.networks).split())
