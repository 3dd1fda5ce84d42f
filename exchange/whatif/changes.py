"""What is to be different in the other run, as it is typed: `ACCOUNT:MARKET=VALUE` and the like.

    mode      17:BTCUSDT=cross       17:*=isolated       *:*=cross
    leverage  17:BTCUSDT=5
    bucket    17:BTCUSDT=600         what an isolated position has when it opens
    wallet    17=1500   17=+500      the first deposit: another amount, or that much more or less
    fund      BTCUSDT=1000   *=0     what the insurance of a market begins with
    brackets  BTCUSDT=FILE.json      the leverage table, as in `foldex admin market list`
    prices    BTCUSDT=FILE.csv       the index path: rows of time,price
    moves     BTCUSDT=1.5            every move from the first price times that
    shift     BTCUSDT=-3%@1200       every price from entry 1200 on, by a percentage or by an amount

`*` is every customer, or every market. Amounts are decimal strings; what is wrong is a `ChangeError`.
"""

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from events.values import Bracket, MarginMode
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID
from exchange.decimals import parse_fixed, parse_money
from exchange.intake.specs import BracketForm
from exchange.whatif.prices import ANY, PricePath, Shift, read_path, read_shift

T = TypeVar("T")


class ChangeError(ValueError):
    """A change cannot be read; the message names the option and the rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForPosition:
    """A value for an account in a market; None is every customer, or every market."""

    account_id: int | None
    market: str | None
    value: int

    def covers(self, account_id: int, market: str) -> bool:
        """Tell whether an account in a market is meant."""
        if self.account_id is None:
            return account_id >= FIRST_USER_ACCOUNT_ID and self.market in (None, market)
        return self.account_id == account_id and self.market in (None, market)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForWallet:
    """An account's first deposit in money units, or what is added to it."""

    account_id: int
    amount: int
    is_added: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All that is different. Maps are by market; what holds for every market is under `*`.

    `described` says each change as it was typed.
    """

    modes: tuple[ForPosition, ...] = ()
    leverages: tuple[ForPosition, ...] = ()
    buckets: tuple[ForPosition, ...] = ()
    wallets: dict[int, ForWallet] = field(default_factory=dict)
    funds: dict[str, int] = field(default_factory=dict)
    brackets: dict[str, tuple[Bracket, ...]] = field(default_factory=dict)
    paths: dict[str, PricePath] = field(default_factory=dict)
    moves: dict[str, Fraction] = field(default_factory=dict)
    shifts: dict[str, Shift] = field(default_factory=dict)
    described: tuple[str, ...] = ()

    @property
    def account_ids(self) -> tuple[int, ...]:
        """The accounts that are named."""
        named = [each.account_id for each in (*self.modes, *self.leverages, *self.buckets)]
        return tuple(sorted({*self.wallets, *(each for each in named if each is not None)}))


Texts = Sequence[str]


def read_changes(
    *,
    mode: Texts = (),
    leverage: Texts = (),
    bucket: Texts = (),
    wallet: Texts = (),
    fund: Texts = (),
    brackets: Texts = (),
    prices: Texts = (),
    moves: Texts = (),
    shift: Texts = (),
) -> Changes:
    """Read the changes that were typed.

    Raises:
        ChangeError: one is none, contradicts another of its kind, or names a file that cannot be used.
    """
    kinds = {
        "mode": mode,
        "leverage": leverage,
        "bucket": bucket,
        "wallet": wallet,
        "fund": fund,
        "brackets": brackets,
        "prices": prices,
        "moves": moves,
        "shift": shift,
    }
    changes = Changes(
        modes=tuple(_for_position("mode", text, _mode) for text in mode),
        leverages=tuple(_for_position("leverage", text, _leverage) for text in leverage),
        buckets=tuple(_for_position("bucket", text, _positive_money) for text in bucket),
        wallets=_once("wallet", [(each.account_id, each) for each in map(_wallet, wallet)]),
        funds=_by_market("fund", fund, parse_money),
        brackets=_by_market("brackets", brackets, _read_brackets),
        paths=_by_market("prices", prices, read_path),
        moves=_by_market("moves", moves, _factor),
        shifts=_by_market("shift", shift, read_shift),
        described=tuple(f"{kind} {text}" for kind, texts in kinds.items() for text in texts),
    )
    for symbol in changes.paths:
        if symbol in changes.moves or symbol in changes.shifts:
            raise ChangeError(f"--prices {symbol}: has --moves or --shift as well; give one of them")
    return changes


def _split(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise ChangeError(f"--{option} {text}: must be NAME=VALUE")
    return name.strip(), value.strip()


def _said(option: str, text: str, read: Callable[[str], T], value: str) -> T:
    """Return what `read` makes of a value; what is wrong with it is said of the option."""
    try:
        return read(value)
    except (ValueError, OSError, csv.Error) as error:  # a DecimalError is a ValueError
        raise ChangeError(f"--{option} {text}: {error}") from None


def _for_position(option: str, text: str, read: Callable[[str], int]) -> ForPosition:
    name, value = _split(option, text)
    account, colon, market = name.partition(":")
    if not colon or not market:
        raise ChangeError(f"--{option} {text}: must be ACCOUNT:MARKET=VALUE")
    return ForPosition(
        account_id=None if account == ANY else _account(option, text, account),
        market=None if market == ANY else market,
        value=_said(option, text, read, value),
    )


def _account(option: str, text: str, account: str) -> int:
    if not account.isascii() or not account.isdigit() or len(account) > 18:
        raise ChangeError(f"--{option} {text}: the account must be a number")
    if int(account) < FIRST_USER_ACCOUNT_ID:
        raise ChangeError(f"--{option} {text}: account {account} is the exchange's own")
    return int(account)


def _wallet(text: str) -> ForWallet:
    name, value = _split("wallet", text)
    is_added = value[0] in "+-"
    amount = _said("wallet", text, lambda v: parse_money(v.removeprefix("+"), signed=True), value)
    if not is_added and amount == 0:
        raise ChangeError(f"--wallet {text}: must be positive")
    return ForWallet(account_id=_account("wallet", text, name), amount=amount, is_added=is_added)


def _by_market(option: str, texts: Texts, read: Callable[[str], T]) -> dict[str, T]:
    pairs = []
    for text in texts:
        market, value = _split(option, text)
        pairs.append((market, _said(option, text, read, value)))
    return _once(option, pairs)


def _once(option: str, pairs: Iterable[tuple[Any, T]]) -> dict[Any, T]:
    found: dict[Any, T] = {}
    for key, value in pairs:
        if key in found:
            raise ChangeError(f"--{option} {key}: is given twice")
        found[key] = value
    return found


def _mode(value: str) -> int:
    member = MarginMode.__members__.get(value.upper())
    if member is None:
        raise ValueError("must be cross or isolated")
    return member


def _leverage(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9 or int(value) < 1:
        raise ValueError("must be a whole number of at least 1")
    return int(value)


def _positive_money(value: str) -> int:
    amount = parse_money(value)
    if amount == 0:
        raise ValueError("must be positive")
    return amount


def _factor(value: str) -> Fraction:
    return Fraction(parse_fixed(value, signed=True), 10**8)


def _read_brackets(file: str) -> tuple[Bracket, ...]:
    """Read a leverage table: a JSON array of steps, or an object that has it as "brackets"."""
    data = json.loads(Path(file).read_text())
    rows = data.get("brackets") if isinstance(data, dict) else data
    try:
        forms = msgspec.convert(rows, list[BracketForm])
    except msgspec.ValidationError as error:
        raise ValueError(f"brackets: {error}") from None
    if not forms:
        raise ValueError("brackets: must not be empty")
    return tuple(
        Bracket(
            cap=parse_money(form.cap),
            maintenance_rate=parse_fixed(form.maintenance_rate),
            max_leverage=form.max_leverage,
        )
        for form in forms
    )
