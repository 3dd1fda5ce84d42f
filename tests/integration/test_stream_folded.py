"""A client that takes over what its stream tells has the account that the calls answer, whatever happens.

Random trading with everything the exchange can meet, six accounts, real sockets; at every quiet point the
clients compare.
"""

import asyncio
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from events.commands import AddApiKey, SetPositionMode
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID
from exchange.intake.keys import new_api_key, new_secret
from exchange.intake.streams.connection import StreamLimits
from tests.flow import SPECS, pause_ns
from tests.recorded import ACCOUNTS
from tests.running_venue import Account, Venue
from tests.streaming import Socket, Stage, streaming
from tests.venue import NS_PER_MS

QUIET_POINTS = 60
COMMANDS = 40
REASONS = {
    "ORDER",
    "FUNDING_FEE",
    "MARGIN_TRANSFER",
    "MARGIN_TYPE_CHANGE",
    "INSURANCE_CLEAR",
    "DEPOSIT",
    "WITHDRAW",
}


class Client:
    """What a client knows of its account from one call at the start, and its stream since."""

    def __init__(self, account: Account, socket: Socket, start: dict[str, Any]) -> None:
        self.account = account
        self.socket = socket
        (asset,) = start["assets"]
        self.wallet, self.cross_wallet = asset["walletBalance"], asset["crossWalletBalance"]
        self.positions: dict[tuple[str, str], dict[str, Any]] = {}
        self.modes = {row["symbol"]: row["isolated"] for row in start["positions"]}
        self.leverages = {row["symbol"]: row["leverage"] for row in start["positions"]}
        self.reasons: set[str] = set()
        self.closed_by: set[str] = set()

    async def take_over(self) -> None:
        """Take over all that was told up to now."""
        await self.socket.socket.send_str('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        while "result" not in (message := await self.socket.next()):
            if message["e"] == "ACCOUNT_UPDATE":
                self._changed(message["a"])
            elif message["e"] == "ACCOUNT_CONFIG_UPDATE":
                self.leverages[message["ac"]["s"]] = str(message["ac"]["l"])
            elif message["e"] == "ORDER_TRADE_UPDATE" and message["o"]["x"] == "CALCULATED":
                self.closed_by.add(message["o"]["c"].partition("-")[0])

    def _changed(self, change: dict[str, Any]) -> None:
        self.reasons.add(change["m"])
        (balance,) = change["B"]
        self.wallet, self.cross_wallet = balance["wb"], balance["cw"]
        for row in change["P"]:
            self.positions[row["s"], row["ps"]] = row
            self.modes[row["s"]] = row["mt"] == "isolated"

    async def compare(self) -> None:
        """Assert that it knows what versions two and three of the account call answer."""
        two, three = [await self._asked(f"/fapi/v{version}/account") for version in (2, 3)]
        for answer in (two, three):
            (asset,) = answer["assets"]
            assert self.wallet == asset["walletBalance"] == answer["totalWalletBalance"]
            assert self.cross_wallet == asset["crossWalletBalance"] == answer["totalCrossWalletBalance"]
        marks = {row["symbol"]: row["markPrice"] for row in await self._asked("/fapi/v1/premiumIndex")}
        for row in two["positions"]:
            symbol, side = row["symbol"], row["positionSide"]
            known = self.positions.get((symbol, side), {"pa": "0", "ep": "0", "iw": "0", "up": "0"})
            assert (self.modes[symbol], self.leverages[symbol]) == (row["isolated"], row["leverage"])
            for name, field in (("pa", "positionAmt"), ("ep", "entryPrice"), ("iw", "isolatedWallet")):
                assert Decimal(known[name]) == Decimal(row[field]), (symbol, side, field)
            size, entry = Decimal(known["pa"]), Decimal(known["ep"])
            profit = size * (Decimal(marks[symbol]) - entry)
            # The entry price is rounded to eight digits, the profit is not made from it.
            assert abs(profit - Decimal(row["unrealizedProfit"])) <= (abs(size) + 1) * Decimal("1e-8")
        rows = {(row["symbol"], row["positionSide"]): row["positionAmt"] for row in three["positions"]}
        held = {key: row["pa"] for key, row in self.positions.items() if Decimal(row["pa"])}
        assert held.items() <= rows.items()
        assert {key for key, amount in rows.items() if Decimal(amount)} == held.keys()

    async def _asked(self, path: str) -> Any:
        status, answer = await self.account.call("GET", path)
        assert 200 == status, answer
        return answer


async def client_of(stage: Stage, account_id: int) -> Client:
    """Give an account a key, listen to its stream, and ask once what it has."""
    api_key, secret = new_api_key(), new_secret()
    sealed = stage.intake.keys.seal(api_key, secret)
    await stage.send(AddApiKey(account_id=account_id, api_key=api_key, sealed_secret=sealed))
    venue = Venue(
        url=stage.url,
        session=stage.session,
        **dict.fromkeys(("log", "admin_url", "stop", "intake", "writer", "key_file")),  # type: ignore[arg-type]
    )
    account = Account(venue, account_id, api_key, secret.reveal().decode())
    _, made = await account.call("POST", "/fapi/v1/listenKey")
    socket = await stage.connect(f"/private/ws?listenKey={made['listenKey']}")
    _, start = await account.call("GET", "/fapi/v2/account")
    return Client(account, socket, start)


@pytest.mark.parametrize("seed", range(2))
async def test_what_is_told_adds_up_to_the_account(seed: int) -> None:
    """Trades, funding, liquidation, deleveraging, transfers, margin, modes, hedging: all is told."""
    limits = StreamLimits(messages_per_s=1_000)
    async with streaming(limits=limits, seed=seed, specs=SPECS) as stage:
        ids = range(FIRST_USER_ACCOUNT_ID, FIRST_USER_ACCOUNT_ID + ACCOUNTS)
        for account_id in ids[::2]:
            await stage.send(SetPositionMode(account_id=account_id, hedge=True))
        clients = [await client_of(stage, account_id) for account_id in ids]
        random = Random(seed)
        for _ in range(QUIET_POINTS):
            for _ in range(COMMANDS):
                stage.record.wait(pause_ns(random) // NS_PER_MS)
                await stage.record.trade(1)
            await stage.caught_up()
            await asyncio.gather(*(client.take_over() for client in clients))
            for client in clients:
                await client.compare()
    assert set().union(*(client.reasons for client in clients)) >= REASONS
    assert {"autoclose", "adl_autoclose"} == set().union(*(client.closed_by for client in clients))
