"""A small course of trading on the test venue, as a log: numbers that a reader can check in the head."""

from events.commands import AnyCommand
from events.events import Event
from events.frame import (
    GENESIS_HASH,
    SCHEMA_VERSION,
    CommandFrame,
    EventEntry,
    chain_hash,
    close_command_frame,
    encode_groups,
)
from events.log import CommandEntry, CommandReader, EventReader, ReadableLog, VerifiedEvents
from events.memory import MemoryLog
from tests.venue import Venue

LOG_ID = 32 * "0"
WRITER = "test:3"


class LoggedVenue(Venue):
    """A `Venue` that also keeps the command frames, so that what happens on it can be had as a log."""

    def __init__(self) -> None:
        self.sent: list[CommandFrame] = []
        super().__init__()

    def send(self, command: AnyCommand) -> list[Event]:
        """Decide one command and keep its frame."""
        events = super().send(command)
        self.sent.append(close_command_frame(self.origin, self.frames, self.now_ns, [command]))
        return events

    def as_log(self) -> MemoryLog:
        """Return all that happened as a log."""
        log = MemoryLog()
        previous = GENESIS_HASH
        for seq, (frame, groups) in enumerate(zip(self.sent, self.log, strict=True), 1):
            log.commands.append(CommandEntry(seq=seq, frame=frame))
            body = encode_groups(groups)
            previous = chain_hash(LOG_ID, previous, seq, SCHEMA_VERSION, frame.checksum, body)
            log.events.append(
                EventEntry(
                    seq=seq,
                    schema=SCHEMA_VERSION,
                    body=body,
                    chain_hash=previous,
                    writer=WRITER,
                    timing=seq.to_bytes(4, "big"),
                )
            )
        return log


def traded() -> LoggedVenue:
    """Return a venue of 12 entries.

    Alice (2) sold bob (3) 0.010 BTC at 50,000.5 in entry 10, bob was refused a withdrawal in 11, and alice's
    order of 12 rests.
    """
    venue = LoggedVenue()
    alice, bob = venue.account("1000"), venue.account("1000")
    venue.index("BTCUSDT", "50000")
    alice.sell("BTCUSDT", "0.010", "50000.5", client_id="first")
    bob.buy("BTCUSDT", "0.010", "50000.5")
    bob.withdraw("5000")
    alice.sell("BTCUSDT", "0.003", "50010")
    return venue


async def answered(log: ReadableLog) -> list[tuple[CommandEntry, VerifiedEvents]]:
    """Return every command entry of a log with its answer."""
    verified = await EventReader(log, log_id=LOG_ID).read(10_000)
    commands = await CommandReader(log).read(len(verified))
    return list(zip(commands, verified, strict=True))
