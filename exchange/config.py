"""Names and numbers that the processes share: where the log is, how long things may take, exit codes."""

from enum import StrEnum
from pathlib import Path

SHARD = "main"
DATA_DIR_DEFAULT = Path(".foldex")
PORT_DEFAULT = 8000
SPEED_DEFAULT = 1.0


class Enforce(StrEnum):
    """Whose requests are refused when they are too many: see `intake.limits`."""

    REMOTE = "remote"
    ALL = "all"
    OFF = "off"


REDIS_URL_ENV = "REDIS_URL"
KEY_FILE_ENV = "FOLDEX_KEY_FILE"
KEY_FILE_NAME = "api-secrets.key"
LOG_FORMAT_ENV = "FOLDEX_LOG_FORMAT"
LOG_LEVEL_ENV = "FOLDEX_LOG_LEVEL"
ARCHIVE_ENV = "FOLDEX_ARCHIVE"
ARCHIVE_DIR_NAME = "archive"
# How long an entry may wait to be archived: what a lost server can cost when its own disk is gone too.
SEGMENT_S = 60.0
SNAPSHOT_DIR_ENV = "FOLDEX_SNAPSHOTS"
SNAPSHOT_DIR_NAME = "snapshots"
AUDIT_SNAPSHOT_DIR_NAME = "audit-snapshots"
# How many events a bucket may be due for without a request before `foldex audit verify` calls it late.
LATE_EVENTS_DEFAULT = 10_000
SNAPSHOT_EVENTS_ENV = "FOLDEX_SNAPSHOT_EVENTS"
# A restart folds at most this many events, and what came while the snapshot was written: about half a second.
# Every process that folds takes a digest at each: 10 to 20 ms for 10,000 open orders.
SNAPSHOT_EVENTS_DEFAULT = 50_000
# Set by a supervisor for its children: they end when this is no longer their parent.
SUPERVISOR_PID_ENV = "FOLDEX_SUPERVISOR_PID"

LEASE_MS_ENV = "FOLDEX_LEASE_MS"
# Long enough for a pause of the process or the server, short enough to wait for a writer that died.
LEASE_TTL_MS_DEFAULT = 3_000
LAG_FRAMES_ENV = "FOLDEX_LAG_FRAMES"
LAG_FRAMES_DEFAULT = 1_024
# Binance's own numbers, as exchangeInfo tells them.
LIMITS_ENV = "FOLDEX_LIMITS"
# Where the house's own traders call from on the exchange's machine: request limits never bind them.
HOUSE_ADDRESS = "127.0.0.2"
WEIGHT_1M_ENV = "FOLDEX_WEIGHT_1M"
WEIGHT_1M_DEFAULT = 2_400
ORDERS_10S_ENV = "FOLDEX_ORDERS_10S"
ORDERS_10S_DEFAULT = 300
ORDERS_1M_ENV = "FOLDEX_ORDERS_1M"
ORDERS_1M_DEFAULT = 1_200
CONNECTS_5M_ENV = "FOLDEX_CONNECTS_5M"
CONNECTS_5M_DEFAULT = 300
CONNECTIONS_ENV = "FOLDEX_CONNECTIONS"
# Binance names no such number. A fifth of the streams' 1,000: no address can keep all others out, and one
# connection carries 1,024 streams, or as many requests at a time as a bot has.
CONNECTIONS_DEFAULT = 200
LEGACY_CONDITIONAL_ORDERS_ENV = "FOLDEX_LEGACY_CONDITIONAL_ORDERS"
REPLICAS_ENV = "FOLDEX_REPLICAS"
# Of the house taker, in all markets together.
TRADES_PER_S_DEFAULT = 2.0
HEARTBEAT_TTL_MS = 3_000
HEARTBEAT_INTERVAL_S = 1.0
SERVER_RETRY_S = 0.1

EXIT_OK = 0
EXIT_NOT_ALIVE = 1
EXIT_FINDING = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_CORRUPT = 10
EXIT_FENCED = 11
EXIT_REWOUND = 12
EXIT_SETTINGS = 13
EXIT_RULES = 14
EXIT_INTERNAL = 70
EXIT_OUTPUT = 74
EXIT_INTERRUPTED = 130

EXIT_MEANINGS = {
    EXIT_OK: "done, or stopped on request",
    EXIT_NOT_ALIVE: "status: not alive; verify: the log is not what was written or decided; audit: a "
    "liquidation is not what the rules make of it",
    EXIT_USAGE: "wrong usage, or a file that cannot be used",
    EXIT_UNAVAILABLE: "no log there, its server does not answer, or a directory or an address is in use",
    EXIT_CORRUPT: "the log is damaged; the message names the entry",
    EXIT_FENCED: "another writer, or another process of the same name, took over",
    EXIT_REWOUND: "the log went backwards; the message says what foldex recover can put back",
    EXIT_SETTINGS: "the server's settings do not keep what is acknowledged; the message names them",
    EXIT_RULES: "the log is under other rules than this build's; the message says what to do",
    EXIT_INTERNAL: "a defect in Foldex itself; the log has the traceback",
    EXIT_OUTPUT: "the output could not be written",
    EXIT_INTERRUPTED: "verify: stopped before it was done, so nothing is known",
}
# A restart would meet the same again, and for a damaged log it must not look as if nothing had happened.
EXITS_FINAL = frozenset({EXIT_USAGE, EXIT_CORRUPT, EXIT_SETTINGS, EXIT_RULES})
