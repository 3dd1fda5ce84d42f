"""Whose key it is, and what it may be used for.

What a key needs for each request (its secret opened, its public key and networks parsed) is made once and
kept for as long as the state holds the same key; a key that was removed is gone with the next request.
"""

from dataclasses import dataclass
from re import ASCII
from re import compile as regex

import structlog

from events.events import ApiKeyAdded
from events.values import KeyKind, KeyPermission
from exchange.aggregate.state import Exchange
from exchange.intake.auth import Verify, ed25519_verifier, hmac_verifier
from exchange.intake.endpoint import Security
from exchange.intake.errors import BAD_KEY, BAD_KEY_FORMAT
from exchange.intake.keys import KeyRing, UnsealError
from exchange.intake.networks import Network, is_within, parse_networks

API_KEY = regex(r"[A-Za-z0-9]{64}", ASCII)
NEEDED: dict[Security, KeyPermission] = {
    Security.KEY: KeyPermission.READ,
    Security.READ: KeyPermission.READ,
    Security.TRADE: KeyPermission.TRADE,
    Security.WITHDRAW: KeyPermission.WITHDRAW,
    Security.ADMINISTER: KeyPermission.ADMINISTER,
}

logger = structlog.get_logger(__name__)


def permissions_of(added: ApiKeyAdded) -> int:
    """Return what a key may do, a sum of `KeyPermission`: what it was given, and to read, as at Binance."""
    return added.permissions | KeyPermission.READ.value


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """The owner of a key. `verify` checks what is signed with it; with no `networks` it may come from any."""

    account_id: int
    added: ApiKeyAdded
    verify: Verify
    networks: tuple[Network, ...]

    @property
    def api_key(self) -> str:
        """The key itself, as the header names it."""
        return self.added.api_key


class Access:
    """Finds the caller of a request by its key."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._callers: dict[str, Caller] = {}

    def caller(self, state: Exchange, api_key: str, remote: str, security: Security) -> Caller:
        """Return whose key it is, when it may make calls of that kind from that address.

        Raises:
            ApiError: -2014 for what cannot be a key; -2015 for one that nobody has, that may not do this, or
                that may not be used from there.
        """
        account_id = state.key_owners.get(api_key)
        if account_id is None:
            self._callers.pop(api_key, None)
            raise (BAD_KEY if API_KEY.fullmatch(api_key) else BAD_KEY_FORMAT).error()
        added = state.accounts[account_id].api_keys[api_key]
        caller = self._callers.get(api_key)
        if caller is None or caller.added is not added:
            caller = self._callers[api_key] = self._make(added)
        if not permissions_of(added) & NEEDED[security]:
            raise BAD_KEY.error()
        if caller.networks and not is_within(remote, caller.networks):
            raise BAD_KEY.error()
        return caller

    def _make(self, added: ApiKeyAdded) -> Caller:
        try:
            if added.kind is KeyKind.ED25519:
                verify = ed25519_verifier(added.public_key)
            else:
                verify = hmac_verifier(self._keys.unseal(added.api_key, added.sealed_secret))
        except (UnsealError, ValueError) as error:
            logger.warning("key_not_usable", account=added.account_id, error=str(error))
            raise BAD_KEY.error() from None
        return Caller(added.account_id, added, verify, parse_networks(added.networks))
