"""Request weights, order counts and bans, and how little is remembered of whom."""

import pytest

from exchange.config import Enforce
from exchange.intake import limits
from exchange.intake.errors import ApiError
from exchange.intake.limits import (
    PACE_BURST,
    PACE_PER_S,
    PACE_TURN_S,
    PACE_WAIT_S_MAX,
    LimitError,
    Limits,
    Usage,
)

FAR = "203.0.113.7"
START_MS = 1_700_000_040_000  # a minute begins


def used_up(limit: int = 10) -> Usage:
    """Return the counters after an address has used all of its minute."""
    usage = Usage(Limits(weight_1m=limit))
    usage.charge(usage.address(FAR, START_MS), limit, START_MS)
    return usage


def test_weight_beyond_the_minute_is_429_until_the_next() -> None:
    """The answer says when the window is over, and then all is well again."""
    usage = used_up()
    with pytest.raises(LimitError) as caught:
        usage.charge(usage.address(FAR, START_MS + 20_500), 1, START_MS + 20_500)
    assert (429, -1003, 40) == (caught.value.status, caught.value.code, caught.value.retry_s)
    later_ms = START_MS + 60_000
    usage.charge(usage.address(FAR, later_ms), 1, later_ms)
    assert 1 == usage.address(FAR, later_ms).weight


def test_cancels_have_a_budget_of_their_own() -> None:
    """Who has used up everything else can still cancel, and that is bounded too."""
    usage = used_up()
    use = usage.address(FAR, START_MS)
    for _ in range(10):
        usage.charge(use, 1, START_MS, is_cancel=True)
    with pytest.raises(LimitError):
        usage.charge(use, 1, START_MS, is_cancel=True)


def test_going_on_is_banned_and_each_ban_is_longer() -> None:
    """418 after so many 429s, for two minutes; the next time for four. Retry-After says how long."""
    usage = used_up()
    now_ms = START_MS
    for minutes in (2, 4):
        use = usage.address(FAR, now_ms)
        usage.charge(use, 10 - use.weight, now_ms) if use.weight < 10 else None
        for _ in range(limits.REFUSALS_MAX):
            with pytest.raises(LimitError) as caught:
                usage.charge(use, 1, now_ms)
            assert 429 == caught.value.status
        with pytest.raises(LimitError) as caught:
            usage.charge(use, 1, now_ms)
        assert (418, -1003, minutes * 60) == (caught.value.status, caught.value.code, caught.value.retry_s)
        with pytest.raises(LimitError) as caught:
            usage.address(FAR, now_ms + 1_000)
        assert 418 == caught.value.status
        now_ms += minutes * 60_000
    usage.address(FAR, now_ms)


def test_orders_are_counted_by_account() -> None:
    """Ten seconds and a minute each have their number; another account is not concerned."""
    usage = Usage(Limits(orders_10s=3, orders_1m=4))
    use = usage.address(FAR, START_MS)
    for _ in range(3):
        usage.count_order(2, 1, use, START_MS)
    assert (3, 3) == usage.orders(2, START_MS)
    with pytest.raises(LimitError, match="limit is 3 orders per 10 SECOND") as caught:
        usage.count_order(2, 1, use, START_MS + 1)
    assert (429, -1015, 10) == (caught.value.status, caught.value.code, caught.value.retry_s)
    usage.count_order(3, 1, use, START_MS + 1)
    with pytest.raises(LimitError, match="limit is 4 orders per 1 MINUTE"):
        usage.count_order(2, 1, use, START_MS + 10_000)
    assert (0, 0) == usage.orders(2, START_MS + 60_000)


@pytest.mark.parametrize(
    ("enforce", "remote", "is_bound"),
    [
        (Enforce.REMOTE, "127.0.0.1", False),
        (Enforce.REMOTE, "::1", False),
        (Enforce.REMOTE, "::ffff:127.0.0.1", False),
        (Enforce.REMOTE, "", False),
        (Enforce.REMOTE, FAR, True),
        (Enforce.ALL, "127.0.0.1", True),
        (Enforce.ALL, "127.0.0.2", False),
        (Enforce.OFF, FAR, False),
    ],
)
def test_whom_the_limits_bind(enforce: Enforce, remote: str, is_bound: bool) -> None:
    """By default only what comes from another machine is refused, and the house never; all is counted."""
    usage = Usage(Limits(weight_1m=1, enforce=enforce))
    use = usage.address(remote, START_MS)
    usage.charge(use, 1, START_MS)
    if is_bound:
        with pytest.raises(LimitError):
            usage.charge(use, 1, START_MS)
    else:
        usage.charge(use, 1, START_MS)
    assert 2 == use.weight


def test_connection_attempts_are_429_until_the_five_minutes_end() -> None:
    """Attempts count whether the connection is still there or not; going on is banned as with weights."""
    usage = Usage(Limits(connects_5m=3))
    use = usage.address(FAR, START_MS)
    for _ in range(3):
        usage.connect(use, START_MS)
        usage.disconnect(use)
    with pytest.raises(LimitError, match="is 3 attempts per 5 minutes") as caught:
        usage.connect(use, START_MS)
    assert (429, -1003, 300 - START_MS // 1_000 % 300) == (
        caught.value.status,
        caught.value.code,
        caught.value.retry_s,
    )
    later_ms = START_MS + caught.value.retry_s * 1_000
    use = usage.address(FAR, later_ms)
    for _ in range(3):
        usage.connect(use, later_ms)
        usage.disconnect(use)
    for status in [429] * limits.REFUSALS_MAX + [418]:
        with pytest.raises(LimitError) as caught:
            usage.connect(use, later_ms)
        assert status == caught.value.status
    with pytest.raises(LimitError):
        usage.address(FAR, later_ms + 1)


def test_connections_open_at_a_time() -> None:
    """One more is refused until another is closed; whom limits do not bind is counted and let in."""
    usage = Usage(Limits(connections=2))
    for remote in (FAR, "127.0.0.1"):
        use = usage.address(remote, START_MS)
        for _ in range(2):
            usage.connect(use, START_MS)
    with pytest.raises(ApiError, match="is 2 connections at a time") as caught:
        usage.connect(usage.address(FAR, START_MS), START_MS)
    assert (429, -1003) == (caught.value.status, caught.value.code)
    usage.connect(use, START_MS)
    usage.disconnect(usage.address(FAR, START_MS))
    usage.connect(usage.address(FAR, START_MS), START_MS)


def test_many_addresses_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those seen last are remembered, and a network of IPv6 addresses counts as one."""
    monkeypatch.setattr(limits, "ADDRESSES_MAX", 100)
    usage = Usage(Limits())
    usage.charge(usage.address(FAR, START_MS), 5, START_MS)
    for n in range(1_000):
        usage.address(f"10.0.{n // 256}.{n % 256}", START_MS)
        usage.address(FAR, START_MS)
    assert 100 == len(usage._addresses)
    assert 5 == usage.address(FAR, START_MS).weight
    first = usage.address("2001:db8::1", START_MS)
    assert first is usage.address("2001:db8::ffff:2", START_MS)
    assert first is not usage.address("2001:db8:0:1::1", START_MS)


def test_refusals_beyond_a_burst_are_answered_at_a_pace() -> None:
    """The first are answered at once, the rest a turn's length together, so many a second."""
    usage, now_s = Usage(Limits()), 1_000.0
    waits_s = [usage.refusal_wait_s("127.0.0.1", now_s) for _ in range(PACE_BURST + PACE_PER_S)]
    assert not any(waits_s[:PACE_BURST])
    assert all(waits_s[PACE_BURST:])
    assert 1.0 <= max(waits_s) <= 1.0 + 2 * PACE_TURN_S
    turns = {round((now_s + wait_s) / PACE_TURN_S, 6) for wait_s in waits_s if wait_s}
    assert all(turn.is_integer() for turn in turns)
    assert len(turns) <= 1 / PACE_TURN_S + 2


def test_who_is_refused_now_and_then_never_waits() -> None:
    """A pause gives the burst back, and another address has its own."""
    usage, now_s = Usage(Limits()), 1_000.0
    while not usage.refusal_wait_s("127.0.0.1", now_s):
        pass
    assert not usage.refusal_wait_s(FAR, now_s)
    later_s = now_s + (PACE_BURST + 1) / PACE_PER_S + 0.001
    assert not any(usage.refusal_wait_s("127.0.0.1", later_s) for _ in range(PACE_BURST))


def test_a_crowd_of_refused_connections_waits_no_longer_than_the_limit() -> None:
    """However many are refused at once, each is answered after two seconds at the latest."""
    usage = Usage(Limits())
    assert PACE_WAIT_S_MAX == max(usage.refusal_wait_s(FAR, 1_000.0) for _ in range(10_000))
