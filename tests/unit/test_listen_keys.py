"""Listen keys: one an account, an hour at a time."""

import pytest

from exchange.intake.errors import ApiError
from exchange.intake.trade.listen_keys import LIFETIME_S, ListenKeys


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
