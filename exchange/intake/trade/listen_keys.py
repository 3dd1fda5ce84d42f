"""Listen keys: what a user data stream is opened with, one for each account.

An hour without being kept alive ends one, and so does the removal of an API key of the account: whoever
had the one may know the other, which its owner's other keys would keep alive.

They outlive the intake: clients that lose their connection come back with the key they have, and ask for
another only after many minutes, in which they would hear nothing. See `listen_key_file`.
"""

import secrets
import time
from collections.abc import Callable

from events.events import ApiKeyRemoved
from events.frame import Groups
from exchange.intake.errors import BAD_LISTEN_KEY

LIFETIME_S = 3_600.0
KEY_BYTES = 32
# How much longer a key must live than was last told before that is told again.
EXTENSION_TOLD_S = 300.0


class ListenKeys:
    """Which key opens the stream of which account, and until when. `clock_s` never turns back.

    At most one key an account: memory is bounded by the accounts there are. `on_stop` is told of each key
    that is ended before its time, `on_change` that there is one more or one less, or that one lives minutes
    longer. A projection: it looks for API keys that were removed.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._owners: dict[str, int] = {}
        self._keys: dict[int, str] = {}
        self._ends_s: dict[str, float] = {}
        self._told_ends_s: dict[str, float] = {}
        self.on_stop: Callable[[str], None] | None = None
        self.on_change: Callable[[], None] | None = None

    def start(self, account_id: int) -> str:
        """Return an account's live key, made if there is none; it lives an hour from now."""
        key = self._live_key(account_id)
        if key is None:
            key = secrets.token_hex(KEY_BYTES)
            self._owners[key] = account_id
            self._keys[account_id] = key
        self._extend(key)
        return key

    def restore(self, account_id: int, key: str, remaining_s: float) -> None:
        """Take in a key of an account that has none."""
        self._owners[key] = account_id
        self._keys[account_id] = key
        self._ends_s[key] = self._told_ends_s[key] = self._clock_s() + remaining_s

    def live(self) -> dict[int, str]:
        """Return the live key of each account that has one."""
        return {account_id: key for account_id, key in self._keys.items() if self.remaining_s(key)}

    def keep(self, account_id: int, named: str | None = None) -> str:
        """Let an account's live key live an hour from now, and return it.

        Raises:
            ApiError: -1125, there is none, or it is not the one that is named.
        """
        key = self._live_key(account_id)
        if key is None or named not in (None, key):
            raise BAD_LISTEN_KEY.error()
        self._extend(key)
        return key

    def stop(self, account_id: int) -> None:
        """End an account's key, if it has one."""
        key = self._keys.pop(account_id, None)
        if key is not None:
            del self._owners[key], self._ends_s[key]
            self._told_ends_s.pop(key, None)
            if self.on_stop is not None:
                self.on_stop(key)
            self._tell_change()

    def feed(self, groups: Groups) -> None:
        """End the keys of accounts that lost an API key."""
        for group in groups:
            for event in group:
                if type(event) is ApiKeyRemoved:
                    self.stop(event.account_id)

    def owner(self, key: str) -> int | None:
        """Return the account that a live key opens, None for any other text."""
        account_id = self._owners.get(key)
        return account_id if account_id is not None and self._live_key(account_id) == key else None

    def remaining_s(self, key: str) -> float:
        """Return how long a key still lives, 0 when it does not."""
        return max(0.0, self._ends_s.get(key, 0.0) - self._clock_s())

    def _extend(self, key: str) -> None:
        self._ends_s[key] = self._clock_s() + LIFETIME_S
        if self._ends_s[key] - self._told_ends_s.get(key, 0.0) > EXTENSION_TOLD_S:
            self._tell_change()

    def _tell_change(self) -> None:
        self._told_ends_s = dict(self._ends_s)
        if self.on_change is not None:
            self.on_change()

    def _live_key(self, account_id: int) -> str | None:
        key = self._keys.get(account_id)
        if key is not None and self._ends_s[key] <= self._clock_s():
            self.stop(account_id)
            return None
        return key
