"""Versions of the rules: who may decide for a log.

Every entry is decided under one version of the rules, and the state says which: the log's first entry, or the
last `RulesChanged`. Whoever decides with a newer version announces that by the same event, in the first entry
that he decides. It cannot be taken back, and commands decided before can be decided again only by a build of
their own version. So it takes somebody to say so: `foldex writer --upgrade`.
"""

from events.log import LogError
from exchange.aggregate.state import RULES_VERSION


class OtherRulesError(LogError):
    """The log is under another version of the rules than this build decides with."""


def waits_for_upgrade(log_version: int, *, upgrade: bool) -> bool:
    """Tell whether this build is to leave a log to others until its rules were announced.

    Raises:
        OtherRulesError: waiting is in vain: the rules here are older.
    """
    if log_version > RULES_VERSION:
        check_rules(log_version, upgrade=upgrade)
    return 0 < log_version < RULES_VERSION and not upgrade


def check_rules(log_version: int, *, upgrade: bool) -> bool:
    """Make sure that this build may decide behind a state under `log_version` (0: an empty log).

    Returns whether that announces newer rules.

    Raises:
        OtherRulesError: the rules here are older, or newer and `upgrade` is not set.
    """
    if log_version in (0, RULES_VERSION):
        return False
    if log_version > RULES_VERSION:
        raise OtherRulesError(
            f"the log is under rules version {log_version}, this build has {RULES_VERSION}: use a newer build"
        )
    if not upgrade:
        raise OtherRulesError(
            f"the log is under rules version {log_version}, this build has {RULES_VERSION}: with --upgrade "
            "it decides by its own from here on, for good"
        )
    return True
