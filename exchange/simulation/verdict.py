"""What is asked when a run is over and the exchange has come to rest."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from events.commands import AnyCommand, Checkpoint, CreateLog, Liquidate, Tick
from events.events import Event
from events.frame import encode_command, header_of
from events.log import LogRewoundError, ReadableLog, VerifiedEvents
from events.segments import ArchivedThenLive
from events.values import Outcome
from exchange.audit.replay import replay
from exchange.fold import Fold, Snapshots
from exchange.simulation.audit import Auditor
from exchange.simulation.processes import World
from exchange.simulation.requests import Request, Told

# Where a command ran: entry and place in it, and its events.
Run = tuple[tuple[int, int], list[Event]]


def check_read_models(world: World) -> None:
    """Compare what the intakes show their clients with the log, when all of it has been read."""
    digest = world.auditor.state.digest()
    for process in world.processes.values():
        if process.intake is not None and process.intake.state.digest() != digest:
            world.find(f"{process.name} shows another state than the log's")


async def check_end(world: World, requests: Sequence[Request]) -> None:
    """Look at everything that must hold at the end, and tell the world what does not."""
    for what in check_requests(requests, world.auditor):
        world.find(what)
    for bucket in world.auditor.due():
        world.find(f"{bucket} is due, and nobody liquidated it")
    await _check_rebuilt(world)


def check_requests(requests: Sequence[Request], auditor: Auditor) -> list[str]:
    """Return what was told to clients and is not so in the log.

    A command that was answered ran once, with those very events; one of which nothing is known ran once or
    not at all; one that was said not to have been executed was not; and none came from nowhere. What one
    intake was given, it kept in order. The same bytes can only have been asked for twice by an administrator
    who insisted.
    """
    found = []
    runs = _runs(auditor)
    asked: dict[bytes, list[Request]] = defaultdict(list)
    for request in requests:
        asked[request.encoded].append(request)
    for encoded, same in asked.items():
        ran = runs.get(encoded, [])
        answered = [request for request in same if request.told in (Told.ANSWERED, Told.REFUSED)]
        possible = [request for request in same if request.told is not Told.NOT_EXECUTED]
        if not len(answered) <= len(ran) <= len(possible):
            found.append(
                f"{_named(same[0].command)}: asked {len(same)} times, {len(answered)} answered, "
                f"{len(same) - len(possible)} not executed as the clients know; it ran {len(ran)} times"
            )
        for request in answered:
            if not any(_is_answer(request, events) for _, events in ran):
                found.append(f"{_named(request.command)}: the answer is not the one in the log")
    found += [
        f"a command ran for which nobody had asked: {kind.__name__}"
        for kind, encoded in _foreign(auditor)
        if encoded not in asked
    ]
    return found + _out_of_order(asked, runs)


def _runs(auditor: Auditor) -> dict[bytes, list[Run]]:
    """Return where each command ran, by its bytes."""
    runs: dict[bytes, list[Run]] = defaultdict(list)
    for entry, groups in zip(auditor.commands, auditor.groups, strict=False):
        if header_of(groups).outcome is Outcome.EXECUTED:
            for index, command in enumerate(entry.frame.commands()):
                runs[encode_command(command)].append(((entry.seq, index), groups[index + 1]))
    return runs


def _foreign(auditor: Auditor) -> Iterator[tuple[type[AnyCommand], bytes]]:
    """Yield what came from clients, by its kind: no process of the exchange asks for that."""
    for entry in auditor.commands:
        for command in entry.frame.commands():
            if not isinstance(command, CreateLog | Liquidate | Checkpoint | Tick):
                yield type(command), encode_command(command)


def _is_answer(request: Request, events: list[Event]) -> bool:
    if request.told is Told.REFUSED:
        return events[:1] == request.events  # what was due besides may stand behind it
    return events == request.events


def _out_of_order(asked: dict[bytes, list[Request]], runs: dict[bytes, list[Run]]) -> list[str]:
    """Return where an intake did not keep the order of what it was given."""
    by_life: dict[int, list[tuple[int, tuple[int, int]]]] = defaultdict(list)
    for encoded, same in asked.items():
        ran = runs.get(encoded, [])
        if len(same) == len(ran) == 1:
            by_life[same[0].life].append((same[0].place, ran[0][0]))
    return [
        f"the commands of intake {life} ran in another order than they came"
        for life, places in by_life.items()
        if sorted(places) != sorted(places, key=lambda pair: pair[1])
    ]


async def _check_rebuilt(world: World) -> None:
    """Rebuild the state from all that is stored, and from the newest snapshot and what follows it."""
    seq, digest = world.auditor.state.seq, world.auditor.state.digest()
    log: ReadableLog = world.store
    archive = str(world.directory / "archive") if world.plan.has_archive else None
    if archive is not None:
        log = ArchivedThenLive(archive, world.store)
    replayed = (await replay(log)).state
    fold = await _caught_up(world, Snapshots(directory=world.directory / "snapshots", archive=archive))
    for how, state in (("a fresh replay", replayed), ("a snapshot and what follows", fold.state)):
        if (state.seq, state.digest()) != (seq, digest):
            world.find(f"{how} leads to another state than the writer's")


async def _caught_up(world: World, snapshots: Snapshots) -> Fold:
    """Return a fold of the whole log; one that a snapshot of another log stops begins again without that."""
    fold = Fold(world.store, _ignore, snapshots)
    try:
        await fold.catch_up()
    except LogRewoundError as error:
        if not world.is_by_foreign_snapshot(error):
            raise
        return await _caught_up(world, snapshots)
    return fold


def _ignore(verified: VerifiedEvents) -> None:
    """Do nothing about an entry: the state is all that is wanted."""


def _named(command: AnyCommand) -> str:
    return f"{type(command).__name__}{encode_command(command)!r}"
