"""A channel: what is sent under one stream name, to all who subscribed to it.

A payload is made once, however many read it, and nothing is made for a channel that nobody reads. Channels
are flushed by beats: of a fixed period, or soon after an entry. A beat runs only while it has channels.
"""

import asyncio
import time
from typing import Final, Protocol

import msgspec
import structlog

# How long after one flush of what is sent at once the next may follow.
SOON_SPACING_S: Final = 0.005

logger = structlog.get_logger(__name__)

encode = msgspec.json.Encoder().encode


class Subscriber(Protocol):
    """Who reads channels. `is_combined`: payloads come wrapped, with the name of their stream."""

    is_combined: bool

    def send(self, payload: bytes) -> None:
        """Queue a message; never waits, and never fails."""
        ...


class Channel:
    """What is sent under a name. Subclasses say how often they are flushed, and what they send then.

    `period_s` is the time between flushes, 0: soon after each entry, None: never, for those who send by
    themselves. `is_fresh` is set when somebody has joined since the last flush: a channel about something
    that is sends it then even if nothing has changed, so that nobody waits for it in a quiet market.
    """

    def __init__(self, name: str, period_s: float | None) -> None:
        self.name = name
        self.period_s = period_s
        self.subscribers: dict[Subscriber, None] = {}
        self.is_fresh = True

    def join(self, subscriber: Subscriber) -> None:
        """Send to a subscriber from now on."""
        self.subscribers[subscriber] = None
        self.is_fresh = True

    def leave(self, subscriber: Subscriber) -> bool:
        """Send to a subscriber no longer; return whether nobody is left."""
        self.subscribers.pop(subscriber, None)
        return not self.subscribers

    def flush(self) -> None:
        """Send what is new."""

    def close(self) -> None:
        """Let go of what it watches; nobody reads it any more."""

    def send(self, payload: object) -> None:
        """Send a message to every subscriber, encoded once for each form."""
        self.send_encoded(encode(payload))

    def send_encoded(self, bare: bytes) -> None:
        """Send a message that is JSON already."""
        wrapped = b""
        for subscriber in tuple(self.subscribers):
            if subscriber.is_combined:
                wrapped = wrapped or b'{"stream":%b,"data":%b}' % (encode(self.name), bare)
                subscriber.send(wrapped)
            else:
                subscriber.send(bare)


class Beat:
    """Flushes its channels once a period, while it has any. With a period of 0 when woken."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._channels: dict[Channel, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flushed_s = 0.0

    def add(self, channel: Channel) -> None:
        """Flush a channel from now on; a running period is not begun anew."""
        self._channels[channel] = None
        self.wake()

    def remove(self, channel: Channel) -> None:
        """Flush a channel no longer."""
        self._channels.pop(channel, None)

    def wake(self) -> None:
        """See to it that a flush is due."""
        if self._timer is None and self._channels:
            delay_s = self._period_s or max(0.0, self._flushed_s + SOON_SPACING_S - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._flush)

    def stop(self) -> None:
        """Flush nothing any more."""
        self._channels.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        self._timer = None
        self._flushed_s = time.monotonic()
        for channel in tuple(self._channels):
            try:
                channel.flush()
            except Exception:
                # A defect in one channel is no reason for the others to fall silent.
                logger.exception("channel_failed", stream=channel.name)
            channel.is_fresh = False
        if self._period_s:
            self.wake()
