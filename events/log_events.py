"""The events of the log itself: its entries, its origins, its rules; and what every event is."""

import msgspec

from events.values import Outcome


class Event(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of all events: frozen, keyword-only, encoded as tagged arrays."""


class FrameHeader(Event, frozen=True, tag="frame"):
    """The first event of every entry: which frame this answers, when, and what became of it.

    The only event that moves the state's clock, its sequence number and its table of origins.
    `origin` is "name:incarnation", `frame_n` that origin's counter, `now_ns` the exchange's time (ns since
    1970), `checksum` the command entry's. `duplicate_of` is the sequence number at which a DUPLICATE ran,
    0 when that is older than remembered or the outcome is another.
    """

    seq: int
    origin: str
    frame_n: int
    now_ns: int
    checksum: bytes
    outcome: Outcome
    duplicate_of: int = 0


class OriginOpened(Event, frozen=True, tag="origin_opened"):
    """An appender's new incarnation begins; frames of the incarnation `replaced` ("" if none) are refused.

    `frame_n` is the counter of the frame that opened it.
    """

    name: str
    incarnation: str
    frame_n: int
    replaced: str


class LogCreated(Event, frozen=True, tag="log_created"):
    """The log has its name, which is part of every hash after it."""

    log_id: str
    rules_version: int


class RulesChanged(Event, frozen=True, tag="rules_changed"):
    """From this entry on, its own commands included, the rules of `rules_version` decide; before, `replaced`.

    It stands behind the header of the first entry that a writer of the newer rules decided.
    """

    rules_version: int
    replaced: int


class TickPassed(Event, frozen=True, tag="tick"):
    """Time passed; the header says to when."""


class CheckpointPassed(Event, frozen=True, tag="checkpoint"):
    """Somebody who folded the log says which digest the state had behind entry `seq`.

    It changes nothing. Being in the chain, it binds every later hash to that state, and whoever remembers
    the digest of his own state there compares.
    """

    seq: int
    digest: bytes
    rules_version: int
