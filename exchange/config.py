"""Names and numbers that the processes share: where the log is, how long things may take, exit codes."""

from pathlib import Path

SHARD = "main"
DATA_DIR_DEFAULT = Path(".foldex")
PORT_DEFAULT = 8000
SPEED_DEFAULT = 1.0

REDIS_URL_ENV = "REDIS_URL"
KEY_FILE_ENV = "FOLDEX_KEY_FILE"
KEY_FILE_NAME = "api-secrets.key"
LOG_FORMAT_ENV = "FOLDEX_LOG_FORMAT"
LOG_LEVEL_ENV = "FOLDEX_LOG_LEVEL"
# Set by a supervisor for its children: they end when this is no longer their parent.
SUPERVISOR_PID_ENV = "FOLDEX_SUPERVISOR_PID"

LEASE_TTL_MS = 3_000
HEARTBEAT_TTL_MS = 3_000
HEARTBEAT_INTERVAL_S = 1.0
SERVER_RETRY_S = 0.1

EXIT_OK = 0
EXIT_NOT_ALIVE = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_CORRUPT = 10
EXIT_FENCED = 11
EXIT_REWOUND = 12
EXIT_SETTINGS = 13
EXIT_INTERNAL = 70
EXIT_OUTPUT = 74

EXIT_MEANINGS = {
    EXIT_OK: "done, or stopped on request",
    EXIT_NOT_ALIVE: "status: not alive",
    EXIT_USAGE: "wrong usage, or a file that cannot be used",
    EXIT_UNAVAILABLE: "no log there, its server does not answer, or a directory or an address is in use",
    EXIT_CORRUPT: "the log is damaged; the message names the entry",
    EXIT_FENCED: "another writer, or another process of the same name, took over",
    EXIT_REWOUND: "the log went backwards; a restart rebuilds the state",
    EXIT_SETTINGS: "the server's settings do not keep what is acknowledged; the message names them",
    EXIT_INTERNAL: "a defect in Foldex itself; the log has the traceback",
    EXIT_OUTPUT: "the output could not be written",
}
# A restart would meet the same again, and for a damaged log it must not look as if nothing had happened.
EXITS_FINAL = frozenset({EXIT_USAGE, EXIT_CORRUPT, EXIT_SETTINGS})
