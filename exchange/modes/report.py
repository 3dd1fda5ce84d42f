"""Both modes side by side, for people and as plain data: money as decimal text, shares as fractions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from exchange.decimals import lots_text, money_text, price_text
from exchange.modes.book import Book
from exchange.modes.chart import WIDTH, share_chart
from exchange.modes.paths import Paths
from exchange.modes.sheet import Numbers
from exchange.modes.shocks import Shock, single_shocks, worst_shock
from exchange.modes.survival import ExitCourse, Survival, quantile

SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
CURVE_POINTS = WIDTH
NOTE = (
    "A bucket or pool that falls to maintenance counts as lost whole. Fees, funding and what a liquidation "
    "may leave are not counted; neither are open orders."
)


def plain(book: Book, paths: Paths, survival: Survival, probability: float) -> dict[str, Any]:
    """Return all figures as plain data."""
    split = survival.split_needs(book.split)
    return {
        "paths": {
            "what": paths.describe,
            "count": paths.count,
            "points": paths.length,
            "hours": round(paths.step_s * (paths.length - 1) / 3600, 3),
        },
        "book": _book(book),
        "least": _least(survival, split),
        "given": _given(book, survival, probability),
        "curve": _curve(survival, split),
        "exits": [_exit(book, survival, each, probability) for each in survival.exits],
        "pool": _pool(book, paths, survival),
        "note": NOTE,
        "each": {
            "isolated": [money_text(need) for need in survival.isolated.tolist()],
            "isolated_split": [money_text(need) for need in split.tolist()],
            "cross": [money_text(need) for need in survival.pooled.tolist()],
        },
    }


def _book(book: Book) -> dict[str, Any]:
    return {
        "positions": [
            {
                "market": p.market.symbol,
                "leg": p.leg.name,
                "size": lots_text(p.market.spec, p.size_lots),
                "mark": price_text(p.market.spec, book.marks[n]),
                "notional": money_text(abs(p.size_lots) * book.marks[n] * p.market.unit),
                "leverage": p.leverage,
                "initial_margin": money_text(initial),
            }
            for p, n, initial in zip(book.positions, book.market_of, book.initial, strict=True)
        ],
        "initial_margin": money_text(sum(book.initial)),
        "collateral": money_text(book.collateral),
    }


def _least(survival: Survival, split: Numbers) -> list[dict[str, Any]]:
    rows = []
    for share in SHARES:
        isolated, fixed, cross = (
            quantile(needs, share) for needs in (survival.isolated, split, survival.pooled)
        )
        rows.append(
            {
                "survive": share,
                "isolated": money_text(isolated),
                "isolated_split": money_text(fixed),
                "cross": money_text(cross),
                "cross_of_isolated": round(cross / isolated, 4) if isolated else None,
                "cross_of_split": round(cross / fixed, 4) if fixed else None,
            }
        )
    return rows


def _given(book: Book, survival: Survival, probability: float) -> dict[str, Any]:
    alone, pool = survival.left()
    dead = survival.dead
    return {
        "collateral": money_text(survival.collateral),
        "isolated": {
            "buckets": [money_text(bucket) for bucket in survival.buckets],
            "each_dies": [_share(dead[:, n]) for n in range(len(book.positions))],
            "wanted": probability,
            "each_for_wanted": [
                money_text(quantile(survival.alone[:, n], 1 - probability))
                for n in range(len(book.positions))
            ],
            "one_dies": _share(dead.any(axis=1)),
            "all_die": _share(dead.all(axis=1)),
            **_left(alone),
        },
        "cross": {"dies": _share(survival.is_drained), **_left(pool)},
        "cross_lives_where_one_dies": _share(dead.any(axis=1) & ~survival.is_drained),
        "cross_dies_where_some_live": _share(survival.is_drained & ~dead.all(axis=1)),
    }


def _left(left: Numbers) -> dict[str, str]:
    return {
        "left_mean": money_text(round(int(left.sum()) / len(left))),
        "left_median": money_text(quantile(left, 0.5)),
        "left_worst": money_text(int(left.min())),
    }


def _share(is_so: Any) -> float:
    return round(float(np.mean(is_so)), 6)


def _curve(survival: Survival, split: Numbers) -> dict[str, Any]:
    """Return the shares of paths that liquidate, at equally spaced amounts up to where nearly none do."""
    highest = max(quantile(split, 0.99), quantile(survival.pooled, 0.99), 1)
    amounts = [round(highest * n / (CURVE_POINTS - 1)) for n in range(CURVE_POINTS)]
    return {
        "collateral": [money_text(amount) for amount in amounts],
        "isolated": [_share(split > amount) for amount in amounts],
        "cross": [_share(survival.pooled > amount) for amount in amounts],
    }


def _exit(book: Book, survival: Survival, course: ExitCourse, probability: float) -> dict[str, Any]:
    return {
        "position": book.name(course.position),
        "bucket": money_text(survival.buckets[course.position]),
        "dies_first": _share(course.died),
        "stop_first": _share(course.stopped),
        "target_first": _share(course.reached),
        "neither": _share(~(course.died | course.stopped | course.reached)),
        "wanted": probability,
        "bucket_for_wanted": money_text(quantile(course.needs, 1 - probability)),
    }


def _pool(book: Book, paths: Paths, survival: Survival) -> dict[str, Any]:
    drained = np.flatnonzero(survival.is_drained)
    starts: Counter[str] = Counter()
    losers: Counter[str] = Counter()
    for ticks in survival.drained_ticks[drained].tolist():
        starts[book.name(book.starts_cascade(ticks))] += 1
        losers[book.name(book.largest_loser(ticks))] += 1
    worst = int(survival.pooled.argmax())
    worst_ticks = survival.worst_ticks[worst].tolist()
    likeliest = worst_shock(book, survival.collateral, survival.moves)
    return {
        "drained_paths": len(drained),
        "starts_cascade": dict(starts.most_common()),
        "largest_loser": dict(losers.most_common()),
        "worst_path": {
            "path": worst,
            "hours": round(float(survival.worst_at[worst]) * paths.step_s / 3600, 3),
            "needs": money_text(int(survival.pooled[worst])),
            "moves": _moves(book, [t / m - 1 for t, m in zip(worst_ticks, book.marks, strict=True)]),
        },
        "shocks": [
            {"name": name, "shock": _shock(book, shock)}
            for name, shock in single_shocks(book, survival.collateral)
        ],
        "worst_correlated": None
        if likeliest is None
        else {
            "deviation": money_text(round(likeliest.deviation)),
            "deviations": None if likeliest.shock is None else round(likeliest.shock.size, 4),
            "shock": _shock(book, likeliest.shock),
        },
    }


def _shock(book: Book, shock: Shock | None) -> dict[str, Any] | None:
    if shock is None:
        return None
    return {
        "moves": _moves(book, shock.moves),
        "starts_cascade": book.name(shock.starts),
        "largest_loser": book.name(shock.loser),
    }


def _moves(book: Book, moves: Sequence[float]) -> dict[str, float]:
    return {symbol: round(move, 6) for symbol, move in zip(book.symbols, moves, strict=True)}


def print_report(console: Console, report: dict[str, Any]) -> None:
    """Print what `plain` returned."""

    def say(text: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    paths, book, given = report["paths"], report["book"], report["given"]
    notional = sum(float(each["notional"]) for each in book["positions"])
    count = len(book["positions"])
    say(
        f"book        {count} position{'s' if count > 1 else ''}, {notional:,.0f} of notional, "
        f"{_money(book['initial_margin'])} of initial margin"
    )
    plural = "path" if paths["count"] == 1 else "paths"
    say(f"prices      {paths['count']:,} {plural} of {paths['hours']:g} hours, {paths['what']}")
    say()
    console.print(_least_table(report["least"][-1:] if paths["count"] == 1 else report["least"]))
    console.print(_given_table(report))
    for each in report["exits"]:
        say(
            f"exits       {each['position']} with {_money(each['bucket'])}: dies first on "
            f"{each['dies_first']:.1%}, stop {each['stop_first']:.1%}, target {each['target_first']:.1%}, "
            f"neither {each['neither']:.1%}; {_money(each['bucket_for_wanted'])} brings dying to at most "
            f"{each['wanted']:.1%}"
        )
    console.print(_shock_table(report["pool"]))
    _say_pool(say, report["pool"])
    if paths["count"] > 1:
        curve = report["curve"]
        say()
        for line in share_chart(
            {"i": curve["isolated"], "c": curve["cross"]},
            0.0,
            float(curve["collateral"][-1]),
            "collateral",
            "share of paths that liquidate: i isolated (split as in the book), c cross",
        ):
            say(line)
    say()
    say(f"note        {report['note']}")
    say(f"given       {_money(given['collateral'])} of collateral; --collateral tries another")


def _money(text: str) -> str:
    return f"{round(float(text), 2):,.2f}"


def _least_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="the least collateral to survive", title_justify="left")
    table.add_column("on this share of the paths", justify="right")
    for title in ("isolated, each what it needs", "isolated, split as in the book", "cross"):
        table.add_column(title, justify="right")
    table.add_column("cross / isolated", justify="right")
    for row in rows:
        of = row["cross_of_isolated"]
        table.add_row(
            f"{row['survive']:.0%}",
            _money(row["isolated"]),
            _money(row["isolated_split"]),
            _money(row["cross"]),
            "-" if of is None else f"{of:.0%}",
        )
    return table


def _given_table(report: dict[str, Any]) -> Table:
    given = report["given"]
    alone = given["isolated"]
    table = Table(title=f"with {_money(given['collateral'])} of collateral", title_justify="left")
    wanted = f"enough on {1 - alone['wanted']:.1%}"
    for title in ("", "liquidated on", wanted, "left in the mean", "in the middle", "at worst"):
        table.add_column(title, justify="right" if title else "left")
    rows_alone = zip(
        report["book"]["positions"],
        alone["buckets"],
        alone["each_dies"],
        alone["each_for_wanted"],
        strict=True,
    )
    for each, bucket, share, enough in rows_alone:
        name = f"isolated {each['market']} {each['size']} with {_money(bucket)}"
        table.add_row(name, f"{share:.1%}", _money(enough))
    rows = (
        ("isolated, at least one", alone["one_dies"], alone),
        ("isolated, all", alone["all_die"], None),
        ("cross, the whole pool", given["cross"]["dies"], given["cross"]),
        ("cross lives where an isolated one dies", given["cross_lives_where_one_dies"], None),
        ("cross dies where isolated ones live", given["cross_dies_where_some_live"], None),
    )
    for title, share, left in rows:
        figures = [_money(left[name]) for name in ("left_mean", "left_median", "left_worst")] if left else []
        table.add_row(title, f"{share:.1%}", "", *figures)
    return table


def _shock_table(pool: dict[str, Any]) -> Table:
    """Return the moves that drain the pool; markets that cannot do it alone are left out."""
    table = Table(title="moves that drain the pool", title_justify="left")
    for title in ("", "moves", "liquidated first", "lost most"):
        table.add_column(title)
    rows = [(each["name"], each["shock"]) for each in pool["shocks"]]
    worst = pool["worst_correlated"]
    if worst is not None:
        name = "worst correlated"
        if worst["deviations"] is not None:
            name += f" ({worst['deviations']:.2f} deviations)"
        rows.append((name, worst["shock"]))
    for name, shock in rows:
        if shock is not None:
            moves = _moves_text(shock["moves"])
            table.add_row(name, moves, shock["starts_cascade"], shock["largest_loser"])
        elif name.startswith(("all", "worst")):
            table.add_row(name, "never")
    return table


def _moves_text(moves: dict[str, float]) -> str:
    """Say how far markets move; once, where it is the same for all of several."""
    sizes = {symbol: f"{move:+.1%}" for symbol, move in moves.items() if move}
    if len(sizes) > 1 and len(set(sizes.values())) == 1:
        return next(iter(sizes.values()))
    return ", ".join(f"{symbol} {size}" for symbol, size in sizes.items())


def _say_pool(say: Any, pool: dict[str, Any]) -> None:
    worst = pool["worst_path"]
    moves = _moves_text(worst["moves"])
    say(f"worst path  needs {_money(worst['needs'])} after {worst['hours']:g} hours, at {moves}")
    if pool["drained_paths"]:
        starts = ", ".join(f"{name} {count}" for name, count in pool["starts_cascade"].items())
        losers = ", ".join(f"{name} {count}" for name, count in pool["largest_loser"].items())
        say(f"cascades    of {pool['drained_paths']} drained paths: begun with {starts}; lost most: {losers}")
