"""Listen keys: one an account, an hour at a time."""

from pathlib import Path

import pytest

from events.commands import AddApiKey, RemoveApiKey
from exchange.intake.errors import ApiError
from exchange.intake.trade.listen_key_file import ListenKeyFile
from exchange.intake.trade.listen_keys import LIFETIME_S, ListenKeys
from tests.venue import Venue


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_key_lives_an_hour_from_when_it_was_last_asked_for() -> None:
    """Asking again returns the live one and extends it; keeping it alive does, too."""
    clock = Clock()
    keys = ListenKeys(clock)
    key = keys.start(2)
    for renew in (keys.start, keys.keep):
        clock.now_s += LIFETIME_S - 1
        assert key == renew(2)
        assert LIFETIME_S == keys.remaining_s(key)
    clock.now_s += LIFETIME_S
    assert keys.owner(key) is None
    assert 0.0 == keys.remaining_s(key)
    assert key != keys.start(2)


def test_a_key_opens_its_own_account_only() -> None:
    """Each account has its own; no other text opens any."""
    keys = ListenKeys(Clock())
    one, other = keys.start(2), keys.start(3)
    assert one != other
    assert (2, 3, None) == (keys.owner(one), keys.owner(other), keys.owner("x"))


def test_what_is_not_there_is_not_kept() -> None:
    """-1125 without a key, with another's, and behind its end; ending twice is no error."""
    keys = ListenKeys(Clock())
    with pytest.raises(ApiError) as caught:
        keys.keep(2)
    assert -1125 == caught.value.code
    key, other = keys.start(2), keys.start(3)
    with pytest.raises(ApiError, match="does not exist"):
        keys.keep(2, other)
    assert key == keys.keep(2, key)
    keys.stop(2)
    keys.stop(2)
    assert keys.owner(key) is None


class Restarted:
    """What is left in a directory by one process after another: each start has its own keys and one clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = 1_000.0
        self.venue = Venue()
        self.trader = self.venue.account("100")
        self.venue.send(AddApiKey(account_id=self.trader.account_id, api_key="first", sealed_secret=b"x"))

    def start(self) -> ListenKeys:
        """Return the keys of a process that has just been started."""
        keys = ListenKeys(Clock())
        ListenKeyFile(self.path, keys, lambda: self.venue.state.accounts, lambda: self.now_s).open()
        return keys


@pytest.fixture
def restarted(tmp_path: Path) -> Restarted:
    """Return a directory in which nothing was started yet."""
    return Restarted(tmp_path / "keys")


def test_a_key_outlives_the_process_and_lives_as_long(restarted: Restarted) -> None:
    """Who comes back with it is known, until the end that it had; nobody else may read the file."""
    key = restarted.start().start(restarted.trader.account_id)
    assert 0o600 == restarted.path.stat().st_mode & 0o777
    restarted.now_s += LIFETIME_S - 10
    again = restarted.start()
    assert restarted.trader.account_id == again.owner(key)
    assert 10 == pytest.approx(again.remaining_s(key))
    assert key == again.keep(restarted.trader.account_id)
    restarted.now_s += LIFETIME_S - 10
    assert restarted.trader.account_id == restarted.start().owner(key)
    restarted.now_s += 20
    assert restarted.start().owner(key) is None


def test_a_key_that_was_ended_stays_ended(restarted: Restarted) -> None:
    """By its owner, or by the removal of an API key that nobody here was told of."""
    account_id = restarted.trader.account_id
    keys = restarted.start()
    ended = keys.start(account_id)
    keys.stop(account_id)
    assert restarted.start().owner(ended) is None

    key = restarted.start().start(account_id)
    restarted.venue.send(AddApiKey(account_id=account_id, api_key="second", sealed_secret=b"x"))
    assert account_id == restarted.start().owner(key)
    restarted.venue.send(RemoveApiKey(account_id=account_id, api_key="first"))
    assert restarted.start().owner(key) is None


@pytest.mark.parametrize("content", [b"", b"[{", b'[{"account_id":2}]', b"{}"])
def test_a_file_that_is_not_whole_is_as_none(restarted: Restarted, content: bytes) -> None:
    """The process starts, without keys, and keeps those it makes."""
    restarted.path.write_bytes(content)
    key = restarted.start().start(restarted.trader.account_id)
    assert restarted.trader.account_id == restarted.start().owner(key)


def test_keys_work_where_they_cannot_be_kept(restarted: Restarted) -> None:
    """A directory that is gone costs nothing but the next start."""
    restarted.path = restarted.path.parent / "gone" / "keys"
    keys = restarted.start()
    key = keys.start(restarted.trader.account_id)
    assert restarted.trader.account_id == keys.owner(key)
    assert restarted.start().owner(key) is None
