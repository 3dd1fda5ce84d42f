"""Who reads what: channels by name, made when the first subscriber comes and closed when the last one goes.

Where names come from is up to `sources`: the market streams, and whatever else has names of its own (a
listen key is the name of its account's stream). A name that nobody knows is remembered as it is, without an
error, as at Binance; it begins to deliver when a source comes to know it, as when a market is listed.

Per entry no more is done than noting what changed and waking a timer.
"""

from typing import Protocol

from events.events import MarketListed
from events.frame import Groups
from exchange.intake.service import Intake
from exchange.intake.streams.channel import Beat, Channel, Subscriber
from exchange.intake.streams.market import MarketStreams


class StreamSource(Protocol):
    """Knows some of the names there are."""

    def channel(self, name: str) -> Channel | None:
        """Return a new channel for a name, None if it is not one of this source's."""
        ...

    def feed(self, groups: Groups) -> None:
        """Take in an entry, behind everything else the intake folds. It must be quick, and not fail."""
        ...

    def tidy(self) -> None:
        """A channel was closed: let go of what only it needed."""
        ...


class Hub:
    """The channels of one intake. To plug in another source of streams: `add`."""

    def __init__(self, intake: Intake) -> None:
        self._sources: list[StreamSource] = [MarketStreams(intake)]
        self._channels: dict[str, Channel] = {}
        self._unknown: dict[str, dict[Subscriber, None]] = {}
        self._soon = Beat(0.0)
        self._beats: dict[float, Beat] = {0.0: self._soon}
        intake.follow(self)

    @property
    def open_names(self) -> tuple[str, ...]:
        """The streams that somebody reads."""
        return tuple(self._channels)

    def add(self, source: StreamSource) -> None:
        """Let another source name streams, behind those that are there already."""
        self._sources.append(source)

    def subscribe(self, name: str, subscriber: Subscriber) -> None:
        """Send a stream to a subscriber from now on."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._open(name)
        if channel is None:
            self._unknown.setdefault(name, {})[subscriber] = None
            return
        channel.join(subscriber)
        if channel.period_s == 0:
            self._soon.wake()

    def unsubscribe(self, name: str, subscriber: Subscriber) -> None:
        """Send a stream to a subscriber no longer."""
        waiting = self._unknown.get(name)
        if waiting is not None:
            waiting.pop(subscriber, None)
            if not waiting:
                del self._unknown[name]
        channel = self._channels.get(name)
        if channel is not None and channel.leave(subscriber):
            self._close(channel)

    def feed(self, groups: Groups) -> None:
        """Take in an entry that has been applied."""
        if not self._channels and not self._unknown:
            return
        for source in self._sources:
            source.feed(groups)
        self._soon.wake()
        if self._unknown:
            for group in groups:
                for event in group:
                    if type(event) is MarketListed:
                        self.look_again()

    def look_again(self) -> None:
        """Ask the sources for the names that none of them knew."""
        for name in tuple(self._unknown):
            if self._open(name) is not None:
                for subscriber in self._unknown.pop(name):
                    self._channels[name].join(subscriber)

    def end(self, name: str) -> None:
        """Close a channel that its source has ended; its subscribers keep the name, which is unknown now."""
        channel = self._channels.get(name)
        if channel is not None:
            self._unknown[name] = dict(channel.subscribers)
            self._close(channel)

    def close(self) -> None:
        """Send nothing any more."""
        for beat in self._beats.values():
            beat.stop()
        self._channels.clear()
        self._unknown.clear()

    def _open(self, name: str) -> Channel | None:
        for source in self._sources:
            channel = source.channel(name)
            if channel is not None:
                self._channels[name] = channel
                if channel.period_s is not None:
                    beat = self._beats.get(channel.period_s)
                    if beat is None:
                        beat = self._beats[channel.period_s] = Beat(channel.period_s)
                    beat.add(channel)
                return channel
        return None

    def _close(self, channel: Channel) -> None:
        del self._channels[channel.name]
        if channel.period_s is not None:
            self._beats[channel.period_s].remove(channel)
        channel.close()
        for source in self._sources:
            source.tidy()
