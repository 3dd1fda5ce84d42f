"""Where the listen keys wait for the next start of an intake: a small file beside the key file, as private.

A client that lost its connection comes back with the key it has, and notices only after minutes that nobody
knows it. So whoever is restarted knows the keys of before. The file is not synced: after a power cut it may
be of some time ago, or not whole, and clients have to ask for keys as if theirs had expired.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from exchange.aggregate.account import Account
from exchange.intake.trade.listen_keys import ListenKeys

logger = structlog.get_logger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    """A listen key, until when it lives by the clock on the wall, and the API keys its account then had."""

    account_id: int
    listen_key: str
    until_s: float
    api_keys: list[str]


class ListenKeyFile:
    """Writes `keys` to `path` whenever they change, and reads them back once. `accounts` are all of them."""

    def __init__(
        self,
        path: Path,
        keys: ListenKeys,
        accounts: Callable[[], dict[int, Account]],
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._keys = keys
        self._accounts = accounts
        self._clock_s = clock_s

    def open(self) -> None:
        """Take in the keys that live, of accounts that have every API key they had; keep all from now on."""
        for row in self._read():
            account = self._accounts().get(row.account_id)
            remaining_s = row.until_s - self._clock_s()
            if account is not None and remaining_s > 0 and account.api_keys.keys() >= set(row.api_keys):
                self._keys.restore(row.account_id, row.listen_key, remaining_s)
        self._keys.on_change = self._save

    def _read(self) -> list[_Kept]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[_Kept])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
            # Said without its content: what is in it opens accounts' streams.
            logger.warning("listen_keys_unread", path=str(self._path), error=type(error).__name__)
            return []

    def _save(self) -> None:
        now_s, accounts = self._clock_s(), self._accounts()
        rows = [
            _Kept(account_id, key, now_s + self._keys.remaining_s(key), list(accounts[account_id].api_keys))
            for account_id, key in self._keys.live().items()
        ]
        draft = ""
        try:
            descriptor, draft = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(rows))
            Path(draft).replace(self._path)
        except OSError as error:
            # The keys are good all the same, until this process ends.
            logger.warning("listen_keys_unsaved", path=str(self._path), error=str(error))
            if draft:
                Path(draft).unlink(missing_ok=True)
