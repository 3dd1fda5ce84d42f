"""`foldex` as a build of another version of the rules, which are the same: for tests of upgrades."""

from exchange.aggregate import state

OTHER_VERSION = state.RULES_VERSION + 1

if __name__ == "__main__":
    # Before anything that takes it from there is imported.
    state.RULES_VERSION = OTHER_VERSION
    from exchange.cli import main

    main()
