"""The streams of accounts: a listen key is the name of one; with `?events=A/B` of those kinds alone.

A key that is not kept alive, or that its owner ends, ends its stream with `listenKeyExpired`.
"""

import asyncio
from collections.abc import Callable
from functools import cached_property

import msgspec

from events.frame import Groups
from exchange.intake.market.data import wall_clock_ms
from exchange.intake.service import Intake
from exchange.intake.streams.channel import Channel
from exchange.intake.streams.hub import Hub
from exchange.intake.streams.user import UserStreams
from exchange.intake.streams.user_messages import ListenKeyExpired

EVENTS_MARK = "?events="
# Every message begins with its kind, so that a filter need not decode it.
_KIND_AT = len('{"e":"')


class AccountStreams:
    """Names the streams of live listen keys. A source of `hub`."""

    def __init__(self, intake: Intake, hub: Hub) -> None:
        self._intake = intake
        self._keys = intake.listen_keys
        self._hub = hub
        self._by_key: dict[str, dict[str, _AccountChannel]] = {}
        self._keys.on_stop = self._end

    @cached_property
    def _users(self) -> UserStreams:
        """Tells what happens; made for the first who listens, since by then the past is known."""
        users = UserStreams(self._intake.past, lambda: self._intake.state)
        self._intake.past.follow(users.handlers)
        return users

    def channel(self, name: str) -> Channel | None:
        """Return a new channel for a live listen key, None for any other name."""
        key, mark, events = name.partition(EVENTS_MARK)
        account_id = self._keys.owner(key)
        if account_id is None:
            return None
        kinds = frozenset(event.encode() for event in events.split("/")) if mark else None
        channel = _AccountChannel(name, kinds, lambda channel: self._leave(key, account_id, channel))
        self._users.listen(account_id, channel.tell)
        channels = self._by_key.get(key)
        if channels is None:
            channels = self._by_key[key] = {}
            self._await_end(key)
        channels[name] = channel
        return channel

    def feed(self, groups: Groups) -> None:
        """Tell what the entry has changed."""
        if self._by_key:
            self._users.flush()

    def tidy(self) -> None:
        """Nothing is kept for channels that were closed."""

    def _await_end(self, key: str) -> None:
        """Look again when the key ends, unless it is kept alive until then."""
        if key not in self._by_key:
            return
        remaining_s = self._keys.remaining_s(key)
        if remaining_s:
            asyncio.get_running_loop().call_later(remaining_s, self._await_end, key)
        else:
            self._end(key)

    def _end(self, key: str) -> None:
        message = ListenKeyExpired(E=wall_clock_ms(), listen_key=key)
        for name, channel in self._by_key.pop(key, {}).items():
            channel.send(message)
            self._hub.end(name)

    def _leave(self, key: str, account_id: int, channel: "_AccountChannel") -> None:
        self._users.leave(account_id, channel.tell)
        channels = self._by_key.get(key, {})
        channels.pop(channel.name, None)
        if not channels:
            self._by_key.pop(key, None)


class _AccountChannel(Channel):
    """One account's stream; `kinds` are the kinds of events wanted, None: all."""

    def __init__(
        self, name: str, kinds: frozenset[bytes] | None, on_close: Callable[["_AccountChannel"], None]
    ) -> None:
        super().__init__(name, period_s=None)
        self._kinds = kinds
        self._on_close = on_close
        # Bound once: what listens must be what leaves.
        self.tell = self._tell

    def close(self) -> None:
        """Listen no longer."""
        self._on_close(self)

    def _tell(self, message: bytes) -> None:
        if self._kinds is None or message[_KIND_AT : message.index(b'"', _KIND_AT)] in self._kinds:
            self.send(msgspec.Raw(message))
