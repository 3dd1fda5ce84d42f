"""Structured logging: one line an event on stderr, for people or as JSON, never with a secret in it."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

REDACTED = "[redacted]"
SECRET_KEYS = frozenset(
    {"secret", "api_secret", "sealed_secret", "signature", "key_material", "password", "authorization"}
)
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure_logging(process: str, *, pid: int, as_json: bool, level: str = "info") -> None:
    """Send log lines to stderr, each with the process's name and id.

    Raises:
        KeyError: the level is none of `LEVELS`.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.RichTracebackFormatter(show_locals=False),
        )
    )
    # What was in the variables of a traceback may be a secret, whatever it was called there.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.StackInfoRenderer(),
            *((structlog.processors.ExceptionRenderer(tracebacks),) if as_json else ()),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(process=process, pid=pid)


def redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the values of secret keys, at any depth of dictionaries. A structlog processor."""
    for key, value in line.items():
        if key.lower() in SECRET_KEYS:
            line[key] = REDACTED
        elif isinstance(value, dict):
            line[key] = redact(None, "", dict(value))
    return line
