"""The clients: an administrator who sets the exchange up, a feed, and traders; all through the intakes.

They see what a client over HTTP would: answers, refusals, broken connections, and what the intake shows them.
They live on a loop of their own, which nothing ever fails, so that what they were told is not forgotten.
"""

import asyncio
from itertools import count
from random import Random

from events.commands import AnyCommand, Deposit, OpenAccount, SetLeverage
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID
from exchange.aggregate.units import MONEY_ONE
from exchange.intake.errors import ApiError
from exchange.intake.service import Intake
from exchange.simulation.processes import Process, World
from exchange.simulation.requests import Request, Told
from exchange.simulation.traffic import START_TICKS, Prices, Trader, opening

TRAVEL_S_MAX = 0.002
NOBODY_THERE_S = 0.1
PAUSE_S_MAX = 0.3
FEED_PAUSE_S_MAX = 0.5
BURST_MAX = 3


class Clients:
    """Everybody who asks. `requests` are all that was asked, in order."""

    def __init__(self, world: World) -> None:
        self.requests: list[Request] = []
        self._world = world
        self._random = world.random
        self._places = count(1)
        self._left = world.plan.commands
        self._first_unused = FIRST_USER_ACCOUNT_ID + world.plan.traders

    async def run(self) -> None:
        """Set the exchange up and trade until all that was planned has been asked."""
        await self._set_up()
        accounts = range(FIRST_USER_ACCOUNT_ID, self._first_unused)
        traders = [Trader(account_id, self._chance()) for account_id in accounts]
        feeding = asyncio.create_task(self._feed())
        await asyncio.gather(*(self._trade(trader) for trader in traders))
        feeding.cancel()

    async def ask(self, command: AnyCommand) -> Request:
        """Ask one of the intakes, and wait for what can be known."""
        request = Request(command)
        self.requests.append(request)
        await asyncio.sleep(self._random.random() * TRAVEL_S_MAX)
        processes = self._serving()
        if not processes:
            request.told = Told.NOT_EXECUTED
            await asyncio.sleep(NOBODY_THERE_S)
            return request
        process = self._random.choice(processes)
        request.life = process.life
        process.pending[id(request)] = request
        process.loop.create_task(self._serve(process, request))
        await request.wait()
        return request

    async def _serve(self, process: Process, request: Request) -> None:
        """Handle a request, in the intake's own process."""
        intake = process.intake
        request.place = next(self._places)
        try:
            if intake is None:
                request.told = Told.NOT_EXECUTED  # its listener is closed
                request.break_off()
            else:
                request.answer(await intake.ask(request.command))
        except ApiError as error:
            request.fail(error)
        finally:
            process.pending.pop(id(request), None)

    def _serving(self) -> list[Process]:
        return [process for process in self._world.processes.values() if process.intake is not None]

    async def _intake(self) -> Intake:
        """Return one of the intakes that serve; wait for one."""
        while True:
            processes = self._serving()
            if processes:
                intake = self._random.choice(processes).intake
                assert intake is not None
                return intake
            await asyncio.sleep(NOBODY_THERE_S)

    def _chance(self) -> Random:
        return Random(self._random.getrandbits(64))

    async def _insist(self, command: AnyCommand) -> None:
        """Ask until there is an answer; a second one to the same thing is a refusal, or harmless."""
        while (await self.ask(command)).told not in (Told.ANSWERED, Told.REFUSED):
            pass

    async def _set_up(self) -> None:
        for commands in opening():
            await asyncio.gather(*(self._insist(command) for command in commands))
        while (await self._intake()).state.next_account_id < self._first_unused:
            label = f"trader {len(self.requests)}"
            await asyncio.gather(*(self.ask(OpenAccount(label=f"{label}-{n}")) for n in range(3)))
        accounts = range(FIRST_USER_ACCOUNT_ID, self._first_unused)
        await asyncio.gather(*(self._fund(account_id) for account_id in accounts))

    async def _fund(self, account_id: int) -> None:
        random = self._random
        amount = random.randint(500, 4_000) * MONEY_ONE
        await self._insist(Deposit(account_id=account_id, amount=amount))
        for symbol in START_TICKS:
            leverage = random.choice((20, 50, 100))
            await self._insist(SetLeverage(account_id=account_id, market=symbol, leverage=leverage))

    async def _feed(self) -> None:
        prices = Prices(self._chance())
        while True:
            await self.ask(prices.next())
            await asyncio.sleep(self._random.random() * FEED_PAUSE_S_MAX)

    async def _trade(self, trader: Trader) -> None:
        random = self._random
        while self._left > 0:
            intake = await self._intake()
            size = min(self._left, random.randint(1, BURST_MAX))
            self._left -= size
            commands = [trader.choose(intake.state) for _ in range(size)]
            asked = await asyncio.gather(*(self.ask(command) for command in commands))
            self._left += sum(request.told is Told.NOT_EXECUTED for request in asked)
            await asyncio.sleep(random.random() * PAUSE_S_MAX)
