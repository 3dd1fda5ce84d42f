"""Isolated against cross on price paths: the aggregate's figures, hand-checked stories, and brute force."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from exchange.aggregate.units import AMOUNT_MAX, MONEY_ONE
from exchange.calc.shapes import AccountFileError
from exchange.feed import FeedError
from exchange.modes import paths as paths_module
from exchange.modes.book import Book, BookError, book_of, read_book
from exchange.modes.chart import HEIGHT, WIDTH, share_chart
from exchange.modes.paths import Draw, GeneratedPaths, Paths, read_model, recorded_paths
from exchange.modes.report import plain
from exchange.modes.sheet import Numbers, Sheet
from exchange.modes.shocks import find_shock, single_shocks, worst_shock
from exchange.modes.survival import Exit, Survival, quantile, share_out, survive
from tests.traded import traded
from tests.venue import money

POINTS = 4_000
BRACKETS = [{"cap": "1000000", "maintenance_margin_rate": "0.004", "max_leverage": 125}]
UNIT = 1  # one unit of 1e-8: equality liquidates


def market(mark: str, brackets: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A market with a tick of 0.1 and a lot of 0.001."""
    return {
        "mark": mark,
        "tick_size": "0.1",
        "lot_size": "0.001",
        "taker_fee": "0.0005",
        "brackets": brackets or BRACKETS,
    }


def position(symbol: str, size: str, entry: str, bucket: str = "1000") -> dict[str, Any]:
    """An isolated position at a leverage of 10."""
    return {
        "market": symbol,
        "size": size,
        "entry_price": entry,
        "margin_mode": "isolated",
        "leverage": 10,
        "bucket": bucket,
    }


def book_from(markets: dict[str, Any], *positions: dict[str, Any], wallet: str = "0") -> Book:
    """Return the book of an account file."""
    file = {"markets": markets, "wallet": wallet, "positions": list(positions)}
    return read_book(json.dumps(file).encode())


def btc() -> Book:
    """Long 0.1 BTC at 50,000 on 500."""
    return book_from({"BTC": market("50000")}, position("BTC", "0.1", "50000", "500"))


def pair(size: str = "-2", eth_bucket: str = "500") -> Book:
    """Long 5,000 of BTC, and 5,000 of ETH the other way."""
    return book_from(
        {"BTC": market("50000"), "ETH": market("2500")},
        position("BTC", "0.1", "50000", "500"),
        position("ETH", size, "2500", eth_bucket),
    )


class Fixed(Paths):
    """Paths as given in quote, one list of marks a point."""

    def __init__(self, book: Book, *paths: list[tuple[float, ...]]) -> None:
        super().__init__(book, count=len(paths), length=len(paths[0]), step_s=60.0, describe="given")
        self._ticks = np.rint(np.array(paths) * 10).astype(np.int64)

    def __iter__(self) -> Iterator[Numbers]:
        """Give one path at a time."""
        for n in range(self.count):
            yield self._ticks[n : n + 1]


def run(book: Book, *paths: list[tuple[float, ...]], collateral: str = "1000", **exits: Exit) -> Survival:
    """Take a book along paths."""
    return survive(book, Fixed(book, *paths), money(collateral), exits)


# The same margin as the aggregate's


def random_book(random: Random) -> Book:
    """Return a book over brackets with borders where the random marks cross them."""
    markets, positions = {}, []
    for n in range(5):
        caps = sorted(random.sample(range(1_000, 2_000_000), 4))
        rates = sorted(random.sample(range(10, 900), 4))
        rows = [
            {"cap": f"{cap}.37", "maintenance_margin_rate": f"0.0{rate:03d}", "max_leverage": 10}
            for cap, rate in zip(caps, rates, strict=True)
        ]
        markets[f"M{n}"] = market(f"{random.randint(10, 90_000)}", rows)
        size = random.choice((1, -1)) * random.randint(1, 60_000) / 1000
        positions.append(
            position(f"M{n}", f"{size:.3f}", f"{random.randint(10, 90_000)}.{random.randrange(100):02d}")
        )
    return book_from(markets, *positions)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_sheet_says_what_the_aggregate_says(seed: int) -> None:
    """On thousands of random points and at bracket borders every need is equal, to the last unit."""
    random = Random(seed)
    book = random_book(random)
    sheet = Sheet(book)
    points = [[random.randint(1, 2 * mark) for mark in book.marks] for _ in range(POINTS)]
    for n, held in enumerate(book.positions):
        for cap in held.market.brackets.caps:
            border = cap // (abs(held.size_lots) * held.market.unit)
            for tick in (border, border + 1):
                points.append(
                    [max(1, tick) if m == book.market_of[n] else mark for m, mark in enumerate(book.marks)]
                )
    ticks = np.array(points, dtype=np.int64)

    gaps = [sheet.gap(n, ticks) for n in range(len(book.positions))]
    pool = sum(gaps)

    for number, marks in enumerate(points):
        needs = book.needs(marks)
        assert needs.alone == tuple(int(gap[number]) + UNIT for gap in gaps)
        assert needs.pooled == int(pool[number]) + UNIT


def test_amounts_beyond_62_bits_are_refused() -> None:
    """Where a sum would leave the exchange's numbers, it is said, not wrapped around."""
    book = book_from({"BTC": market("50000")}, position("BTC", "900000.0", "50000"))
    with pytest.raises(BookError, match="too large on these paths"):
        run(book, [(50000.0,), (90000.0,)])


# What is needed


def test_a_position_alone_needs_its_loss_and_its_maintenance() -> None:
    """At 45,000 it has lost 500 and must keep more than 18: 518 and one unit."""
    survival = run(btc(), [(50000.0,), (45000.0,), (60000.0,)])

    assert [[money("518") + UNIT]] == survival.alone.tolist()
    assert [money("518") + UNIT] == survival.pooled.tolist()
    assert [[money("1000")]] == survival.profits.tolist()


def test_that_unit_is_life_or_death() -> None:
    """518.00000001 lives where 518 dies, isolated and pooled."""
    book = btc()
    for collateral, is_dead in (("518", True), ("518.00000001", False)):
        survival = run(book, [(50000.0,), (45000.0,)], collateral=collateral)
        assert [[is_dead]] == survival.dead.tolist()
        assert [is_dead] == survival.is_drained.tolist()


def test_losses_at_different_times_need_no_money_of_their_own() -> None:
    """BTC loses 500 first, ETH 500 later: alone 518 and 518, in one pool 538."""
    book = pair("2")

    survival = run(book, [(50000.0, 2500.0), (45000.0, 2500.0), (50000.0, 2250.0)])

    assert [[money("518") + 1, money("518") + 1]] == survival.alone.tolist()
    assert [money("1036") + 2] == survival.isolated.tolist()
    assert [money("538") + 1] == survival.pooled.tolist()  # 500 + 18 for the one, 20 for the other


def test_a_hedge_needs_next_to_nothing_in_one_pool() -> None:
    """Both rise by a fifth: the short alone needs 1,024, the pool only 48 of maintenance."""
    survival = run(pair(), [(50000.0, 2500.0), (60000.0, 3000.0)])

    assert [[money("20") + 1, money("1024") + 1]] == survival.alone.tolist()
    assert [money("48") + 1] == survival.pooled.tolist()


def test_what_falls_together_needs_it_all_in_one_pool() -> None:
    """Both fall by a tenth at once: 1,036, as much as alone, and one unit less for having one border."""
    survival = run(pair("2"), [(50000.0, 2500.0), (45000.0, 2250.0)])

    assert [money("1036") + 2] == survival.isolated.tolist()
    assert [money("1036") + 1] == survival.pooled.tolist()


def test_the_same_collateral_can_lose_all_of_it_or_half() -> None:
    """BTC falls by 22 %, ETH stands still: isolated 500 are left, of the pool nothing."""
    survival = run(pair("2"), [(50000.0, 2500.0), (39000.0, 2500.0)])

    assert ([[True, False]], [True]) == (survival.dead.tolist(), survival.is_drained.tolist())
    alone, pool = survival.left()
    assert ([money("500")], [0]) == (alone.tolist(), pool.tolist())


def test_a_fixed_split_needs_more_than_hindsight() -> None:
    """ETH alone needs 518, BTC 20: split in halves that is 1,036, of which BTC uses nothing."""
    book = pair("2")
    survival = run(book, [(50000.0, 2500.0), (50000.0, 2250.0)])

    assert [money("538") + 2] == survival.isolated.tolist()
    (needed,) = survival.split_needs(book.split).tolist()
    assert money("1036") + 2 == needed
    assert not run(book, [(50000.0, 2250.0)], collateral="1036.00000002").dead.any()
    assert run(book, [(50000.0, 2250.0)], collateral="1036.00000001").dead.any()


def test_a_split_that_gives_next_to_nothing_is_bounded() -> None:
    """A share of one unit in 1,000 would ask for more than there can be: the largest amount stands for it."""
    survival = run(pair("2"), [(50000.0, 2500.0), (45000.0, 2250.0)])
    assert [AMOUNT_MAX] == survival.split_needs((1, money("1000000000"))).tolist()


@pytest.mark.parametrize("seed", [1, 2])
def test_brute_force_agrees(seed: int) -> None:
    """Point by point through the aggregate: the same needs, the same deaths, cross never above isolated."""
    random = Random(seed)
    book = random_book(random)
    ends = [mark / 10 for mark in book.marks]
    paths = [
        [tuple(round(end * random.uniform(0.7, 1.3), 1) for end in ends) for _ in range(6)] for _ in range(40)
    ]
    survival = run(book, *paths, collateral="400000")

    for n, path in enumerate(paths):
        needs = [book.needs([round(price * 10) for price in point]) for point in path]
        pooled = max(need.pooled for need in needs)
        assert max(0, pooled) == survival.pooled[n]
        drained = [book.is_drained([round(p * 10) for p in point], money("400000")) for point in path]
        assert (drained.index(True) if any(drained) else -1) == survival.drained_at[n]
        for m in range(len(book.positions)):
            assert max(0, *(need.alone[m] for need in needs)) == survival.alone[n, m]
        assert survival.pooled[n] <= survival.isolated[n] <= survival.split_needs(book.split)[n]


def test_an_order_statistic() -> None:
    """Of 1…10, enough on half of them is 5, on 95 % and on all of them 10."""
    needs = np.array([3, 1, 2, 10, 9, 8, 7, 6, 5, 4], dtype=np.int64)
    assert [5, 10, 10, 1] == [quantile(needs, share) for share in (0.5, 0.95, 1.0, 0.0)]


def test_a_collateral_is_shared_out_in_whole_units() -> None:
    """100 units in the proportions 1:1:1 are 33 each."""
    assert (33, 33, 33) == share_out(100, (1, 1, 1))


# Stops and targets


def exits_of(survival: Survival) -> list[tuple[bool, bool, bool]]:
    """Return (died, stopped, reached) for each path."""
    (course,) = survival.exits
    return list(zip(course.died.tolist(), course.stopped.tolist(), course.reached.tolist(), strict=True))


def test_what_comes_first() -> None:
    """On 500: dead at 45,150 before 60,000; stopped at 46,000; at the target; none of them."""
    survival = run(
        btc(),
        [(50000.0,), (45150.0,), (60000.0,)],
        [(50000.0,), (46000.0,), (45000.0,)],
        [(50000.0,), (61000.0,), (40000.0,)],
        [(50000.0,), (49000.0,), (51000.0,)],
        collateral="500",
        BTC=Exit(stop_ticks=460_000, target_ticks=600_000),
    )

    died, stopped, reached, none = (
        (True, False, False),
        (False, True, False),
        (False, False, True),
        (False,) * 3,
    )
    assert [died, stopped, reached, none] == exits_of(survival)


def test_the_buffer_for_the_way_to_the_target() -> None:
    """Up to 60,000 the first path asks for 485 + 18.06; what comes after the target asks for nothing."""
    survival = run(
        btc(),
        [(50000.0,), (45150.0,), (60000.0,)],
        [(50000.0,), (60000.0,), (30000.0,)],
        BTC=Exit(target_ticks=600_000),
    )

    (course,) = survival.exits
    assert [money("503.06") + UNIT, money("20") + UNIT] == course.needs.tolist()
    assert money("20") + UNIT == quantile(course.needs, 0.5)


def test_a_short_has_its_stop_above() -> None:
    """Stop 2,600 and target 2,400 of a short, on 500."""
    book = book_from({"ETH": market("2500")}, position("ETH", "-2", "2500", "500"))
    survival = run(
        book,
        [(2500.0,), (2600.0,), (2400.0,)],
        [(2500.0,), (2400.0,), (2600.0,)],
        [(2500.0,), (2800.0,), (2400.0,)],
        collateral="500",
        ETH=Exit(stop_ticks=26_000, target_ticks=24_000),
    )

    assert [(False, True, False), (False, False, True), (True, False, False)] == exits_of(survival)


# Shocks


def test_the_move_that_drains_a_pool_of_one() -> None:
    """500 − 0.1 × fall ≤ 0.0004 × price at 45,180.7: a fall of 9.64 %."""
    shock = find_shock(btc(), money("500"), "BTC", [-1.0])

    assert shock is not None
    assert (451_807,) == shock.ticks
    assert -0.0964 == round(shock.moves[0], 4)
    assert not btc().is_drained([451_808], money("500"))


def test_a_hedge_dies_by_one_of_its_legs_not_by_both() -> None:
    """A pool of 1,000 bears a fall of both, and not that of BTC alone by a fifth."""
    shocks = dict(single_shocks(pair(), money("1000")))

    assert shocks["all fall alike"] is None
    falls = shocks["BTC falls"]
    assert falls is not None
    assert -0.193 == round(falls.moves[0], 3)
    assert (1, 0) == (falls.starts, falls.loser)  # ETH has the larger maintenance now, BTC lost


def test_the_likeliest_shock_follows_exposure_and_covariance() -> None:
    """Two independent markets, BTC twice as volatile: BTC moves four times as far per unit of exposure."""
    moves = np.array([[0.02, 0.0], [-0.02, 0.0], [0.0, 0.01], [0.0, -0.01]])
    worst = worst_shock(pair("2"), money("1000"), moves)

    assert worst is not None
    assert worst.shock is not None
    assert 4.0 == pytest.approx(worst.direction[0] / worst.direction[1])
    assert worst.direction[0] < 0
    # Per half of the moves: variance (0.02² + 0.01²) / 2 of 5,000 each.
    assert worst.deviation / MONEY_ONE == pytest.approx(5000 * (0.0005 / 2) ** 0.5)
    assert pair("2").is_drained(worst.shock.ticks, money("1000"))


def test_without_moves_there_is_no_likeliest_shock() -> None:
    """Prices that stand still say nothing about what is likely."""
    assert worst_shock(btc(), money("500"), np.zeros((3, 1))) is None


# Paths


CANDLES = "datetime,open,high,low,close,volume\n"


def candles(tmp_path: Path, name: str, prices: list[float]) -> str:
    """Write candles of a minute whose four prices are one after the other; return the file."""
    rows = []
    for n, price in enumerate(prices):
        low, high = price * 0.99, price * 1.01
        rows.append(f"2025-10-10 21:{n:02d}:00,{price:.1f},{high:.1f},{low:.1f},{price * 1.005:.1f},1\n")
    path = tmp_path / f"{name}_1m.csv"
    path.write_text(CANDLES + "".join(rows))
    return str(path)


def recording(tmp_path: Path) -> list[str]:
    """Two markets of which ETH is a twentieth of BTC, always: perfectly correlated."""
    random = Random(5)
    prices = [50_000 * (1 + random.uniform(-0.1, 0.1)) for _ in range(30)]
    return [candles(tmp_path, "BTC", prices), candles(tmp_path, "ETH", [price / 20 for price in prices])]


def all_of(paths: Paths) -> Numbers:
    """All ticks of all paths."""
    return np.concatenate(list(paths))


def draw(book: Book, files: list[str], kind: Draw, **more: Any) -> Paths:
    """Return paths of a recording."""
    wanted: dict[str, Any] = {"count": 50, "candles": None, "block": 4, "seed": 1} | more
    return recorded_paths(book, files, kind, **wanted)


def test_the_whole_recording_is_one_path(tmp_path: Path) -> None:
    """Four points a candle, the first at the book's mark, moving as the file does."""
    files = recording(tmp_path)
    ticks = all_of(draw(pair(), files, Draw.WHOLE))

    assert (1, 120, 2) == ticks.shape
    assert [500_000, 25_000] == ticks[0, 0].tolist()
    assert abs(ticks[0, 1, 0] / 500_000 - 0.99) < 1e-4


def test_windows_are_stretches_that_begin_at_the_marks(tmp_path: Path) -> None:
    """30 candles have 21 stretches of 10, and no more, however many are asked for."""
    paths = draw(pair(), recording(tmp_path), Draw.WINDOWS, candles=10)
    ticks = all_of(paths)

    assert (21, 40, 2) == ticks.shape == (paths.count, paths.length, 2)
    assert (ticks[:, 0] == [500_000, 25_000]).all()


def test_blocks_keep_the_correlation_and_the_seed(tmp_path: Path) -> None:
    """Drawn for all markets together: ETH stays a twentieth; the same seed gives the same paths."""
    files = recording(tmp_path)
    ticks = all_of(draw(pair(), files, Draw.BLOCKS, candles=25))

    assert (50, 101, 2) == ticks.shape
    assert np.abs(ticks[..., 0] / ticks[..., 1] / 20 - 1).max() < 1e-3
    assert (ticks == all_of(draw(pair(), files, Draw.BLOCKS, candles=25))).all()
    assert (ticks != all_of(draw(pair(), files, Draw.BLOCKS, candles=25, seed=2))).any()


MODEL = b"""{"step_s": 900, "volatility": 0.5, "jumps_per_day": 1, "jump": 0.02,
             "assets": {"BTC": {"beta": 1, "noise": 0}, "ETH": {"beta": 1.5, "noise": 0.3}}}"""


def generated(seed: int = 1, count: int = 400) -> GeneratedPaths:
    """Return paths of a model: a day in steps of a quarter of an hour."""
    book = pair()
    return GeneratedPaths(book, read_model(MODEL, book), count=count, steps=96, seed=seed)


def test_generated_paths_have_the_model_s_volatility_and_correlation() -> None:
    """A day's deviation of BTC is √(0.5² / 365 + 0.02²) = 3.3 %; ETH follows one and a half times."""
    ticks = all_of(generated(count=2_000))
    moves = np.log(ticks[:, -1] / ticks[:, 0])

    assert moves[:, 0].std() == pytest.approx((0.5**2 / 365 + 0.02**2) ** 0.5, rel=0.1)
    slope = (moves[:, 0] * moves[:, 1]).sum() / (moves[:, 0] ** 2).sum()
    assert slope == pytest.approx(1.5, rel=0.05)


def test_a_path_is_the_same_however_many_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Path n of a seed does not depend on the size of the chunks."""
    whole = all_of(generated())
    monkeypatch.setattr(paths_module, "POINTS_PER_CHUNK", 1_000)
    assert (whole == all_of(generated())).all()
    assert (whole != all_of(generated(seed=2))).any()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "the model: "),
        (b'{"step_s": 60, "volatility": 1, "assets": {"BTC": {"beta": 1, "noise": 0}}}', "no asset ETH"),
        (MODEL.replace(b'"step_s": 900', b'"step_s": 0'), "step_s must be positive"),
        (MODEL.replace(b'"volatility": 0.5', b'"volatility": -1'), "volatility must be in"),
        (MODEL.replace(b'"jump": 0.02', b'"jmp": 0.02'), "unknown field `jmp`"),
    ],
)
def test_a_bad_model_is_named(text: bytes, reason: str) -> None:
    """What is wrong with a model is said."""
    with pytest.raises(FeedError, match=reason):
        read_model(text, pair())


def test_prices_without_bounds_are_refused() -> None:
    """A model that leads to prices beyond all ticks is an error, not a number that wrapped around."""
    book = pair()
    model = read_model(MODEL.replace(b'"jump": 0.02', b'"jump": 900'), book)
    with pytest.raises(FeedError, match="grow beyond what can be counted in ticks"):
        survive(book, GeneratedPaths(book, model, count=50, steps=96, seed=1), money("1000"), {})


def test_recordings_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """A market without a file, a path longer than the recording, a block as long as it."""
    files = recording(tmp_path)
    with pytest.raises(FeedError, match="no price file for ETH"):
        draw(pair(), files[:1], Draw.WHOLE)
    with pytest.raises(FeedError, match="a path of 31 candles is longer than the recording, which has 30"):
        draw(pair(), files, Draw.WINDOWS, candles=31)
    with pytest.raises(FeedError, match="a block of 30 candles does not fit"):
        draw(pair(), files, Draw.BLOCKS, candles=10, block=30)


# Books


def test_a_book_from_a_log() -> None:
    """Alice of the small log is short 0.010; her collateral is what her wallet holds."""
    venue = traded()
    book = book_of(venue.replayed(), 2)

    assert ["short BTCUSDT"] == [book.name(0)]
    assert venue.state.accounts[2].wallet == book.collateral


def test_books_that_are_none_are_named() -> None:
    """An account that is not there, one without positions, a file without any."""
    with pytest.raises(BookError, match="there is no account 99 at entry 12"):
        book_of(traded().replayed(), 99)
    with pytest.raises(BookError, match="the book has none"):
        book_of(traded().replayed(), 1)
    with pytest.raises(AccountFileError, match="positions: the book has none"):
        book_from({"BTC": market("50000")})


# What is printed


def test_a_report_in_shares() -> None:
    """Two of four paths kill the isolated position, one the pool of both."""
    book = pair("2")
    paths = Fixed(
        book,
        [(50000.0, 2500.0), (44000.0, 2500.0)],
        [(50000.0, 2500.0), (44000.0, 2000.0)],
        [(50000.0, 2500.0), (50000.0, 2500.0)],
        [(50000.0, 2500.0), (51000.0, 2600.0)],
    )
    report = plain(book, paths, survive(book, paths, money("1000"), {}), 0.25)

    given = report["given"]
    assert ([0.5, 0.25], 0.5, 0.25) == (
        given["isolated"]["each_dies"],
        given["isolated"]["one_dies"],
        given["isolated"]["all_die"],
    )
    assert (0.25, 0.25, 0.0) == (
        given["cross"]["dies"],
        given["cross_lives_where_one_dies"],
        given["cross_dies_where_some_live"],
    )
    assert {"long BTC": 1} == report["pool"]["starts_cascade"]
    assert {"long ETH": 1} == report["pool"]["largest_loser"]
    assert 4 == len(report["each"]["cross"])


def test_a_chart_is_drawn_within_its_bounds() -> None:
    """Full at the left, empty at the right; where both curves are stands one sign for both."""
    lines = share_chart({"i": [1.0, 1.0], "c": [1.0, 0.0]}, 0.0, 3000.0, "collateral", "share")

    assert HEIGHT + 4 == len(lines)
    assert "100% |" + "#" * (WIDTH // 2) + "i" * (WIDTH // 2) == lines[1].strip()
    assert lines[-1].strip().startswith("0")
    assert lines[-1].endswith("3,000")
