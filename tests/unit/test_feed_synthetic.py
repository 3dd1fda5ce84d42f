"""Generated prices: repeatable, correlated, and with a crash of a known shape."""

from itertools import islice, pairwise
from math import log

import pytest
from feed_markets import SPECS
from msgspec.structs import replace

from exchange.feed.source import FeedError, PricePoint
from exchange.feed.synthetic import cholesky, open_calm, open_crash


def returns(points: list[PricePoint], symbol: str) -> list[float]:
    """Return a symbol's log returns from point to point."""
    prices = [point.prices[symbol].price_ticks for point in points]
    return [log(later / earlier) for earlier, later in pairwise(prices)]


def test_the_same_seed_gives_the_same_path() -> None:
    """A path is repeated by its seed, in both scenarios, and another seed gives another one."""
    calm = open_calm(SPECS, seed=7)

    assert list(islice(calm, 200)) == list(islice(calm, 200))
    assert list(islice(calm, 200)) == list(islice(open_calm(SPECS, seed=7), 200))
    assert list(islice(calm, 200)) != list(islice(open_calm(SPECS, seed=8), 200))
    assert list(open_crash(SPECS, seed=7)) == list(open_crash(SPECS, seed=7))


def test_a_calm_market_has_no_end_and_a_crash_has_its_steps() -> None:
    """The length tells a progress bar what to expect."""
    assert open_calm(SPECS, seed=1).length is None
    assert 150 == open_crash(SPECS, seed=1, steps=150).length
    assert 150 == len(list(open_crash(SPECS, seed=1, steps=150)))


def test_the_text_of_a_generated_price_is_its_ticks() -> None:
    """Nothing is lost between the generator and the log."""
    first = next(iter(open_calm(SPECS, seed=1)))

    assert (1_200_000, "120000") == (first.prices["BTCUSDT"].price_ticks, first.prices["BTCUSDT"].raw)
    assert (430_000, "4300") == (first.prices["ETHUSDT"].price_ticks, first.prices["ETHUSDT"].raw)


def test_a_calm_market_is_as_volatile_and_correlated_as_it_says() -> None:
    """Over six hours of seconds, deviation and correlation are those of diffusion plus jumps."""
    points = list(islice(open_calm(SPECS, seed=3), 6 * 3_600 + 1))
    btc, eth = returns(points, "BTCUSDT"), returns(points, "ETHUSDT")
    btc_square, eth_square = sum(r * r for r in btc), sum(r * r for r in eth)

    # A year's 45 % and 70 % over a quarter of a day, and 6 jumps of 0.15 % and 0.25 %.
    assert 0.45**2 / 365 / 4 + 6 * 0.0015**2 == pytest.approx(btc_square, rel=0.25)
    assert 0.70**2 / 365 / 4 + 6 * 0.0025**2 == pytest.approx(eth_square, rel=0.25)
    covariance = sum(b * e for b, e in zip(btc, eth, strict=True))
    assert 0.85 == pytest.approx(covariance / (btc_square * eth_square) ** 0.5, abs=0.08)


@pytest.mark.parametrize("seed", range(10))
def test_every_crash_falls_as_far_and_recovers_half_way(seed: int) -> None:
    """BTC loses about 15 %, ETH about 22 %, in the wick at three fifths; about half of it comes back."""
    points = list(open_crash(SPECS, seed=seed))

    for symbol, fall in (("BTCUSDT", 0.15), ("ETHUSDT", 0.22)):
        prices = [point.prices[symbol].price_ticks for point in points]
        low = min(prices)
        at = prices.index(low)
        assert fall == pytest.approx(1 - low / prices[0], abs=0.02)
        assert 0.6 == pytest.approx(at / len(prices), abs=0.02)
        assert fall * 0.8 > 1 - min(prices[: int(0.57 * len(prices))]) / prices[0]
        assert low * 1.01 < min(prices[at + 12 :])
        assert fall / 2 == pytest.approx(1 - prices[-1] / prices[0], abs=0.04)


def test_a_path_can_go_on_from_where_the_market_is() -> None:
    """Given a price in ticks, the path begins there instead of at the built-in one."""
    first = next(iter(open_calm(SPECS, seed=1, start_ticks={"BTCUSDT": 999_999})))

    assert "99999.9" == first.prices["BTCUSDT"].raw
    assert "4300" == first.prices["ETHUSDT"].raw


def test_a_price_stays_within_what_the_market_accepts() -> None:
    """A path that would leave the market's range stops at its edge."""
    narrow = {"BTCUSDT": replace(SPECS["BTCUSDT"], max_price_ticks=1_100_000)}
    source = open_calm(narrow, seed=1)

    assert ("BTCUSDT",) == source.symbols
    assert {1_100_000} == {point.prices["BTCUSDT"].price_ticks for point in islice(source, 50)}


def test_symbols_that_cannot_be_generated_are_refused() -> None:
    """Without any known symbol there is no path; the refusal says which are known."""
    with pytest.raises(FeedError, match="generated prices for BTCUSDT, ETHUSDT, and none of them is listed"):
        open_calm({"DOGEUSDT": SPECS["BTCUSDT"]}, seed=1)
    with pytest.raises(FeedError, match="at least 100 steps"):
        open_crash(SPECS, seed=1, steps=99)


def test_cholesky_factor_squares_to_the_matrix() -> None:
    """L·Lᵀ is the matrix again; one that no numbers can have as correlations is refused."""
    matrix = [[1.0, 0.6, 0.2], [0.6, 1.0, -0.3], [0.2, -0.3, 1.0]]
    factor = cholesky(matrix)

    for i in range(3):
        for j in range(3):
            assert matrix[i][j] == pytest.approx(sum(factor[i][k] * factor[j][k] for k in range(3)))
    with pytest.raises(ValueError, match="not positive definite"):
        cholesky([[1.0, 1.2], [1.2, 1.0]])
