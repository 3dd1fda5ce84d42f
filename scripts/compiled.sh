#!/bin/sh
# Build the aggregate with mypyc into .compiled, run the rules' tests against it, and compare its events with
# those of the interpreted sources, byte by byte.
set -eu
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
rm -rf .compiled build
FOLDEX_COMPILE=1 "$python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
    --target .compiled .
rm -rf build
cp -r tests bench docs pyproject.toml .compiled/
cd .compiled
where=$("$python" -c 'import exchange.aggregate.state as s; print(s.__file__)')
case "$where" in *.so) ;; *) echo "not compiled: $where" >&2; exit 1 ;; esac
"$python" -m pytest -q -p no:cacheprovider tests/unit tests/property \
    --deselect tests/unit/test_purity.py --ignore tests/unit/test_compose.py \
    --ignore tests/unit/test_documented_commands.py "$@"
"$python" -m bench.decide --json --commands 50000 --rounds 3 >compiled.json
cd ..
"$python" -m bench.decide --json --commands 50000 --rounds 3 >.compiled/interpreted.json
"$python" - <<'PY'
import json
compiled, interpreted = (json.load(open(f".compiled/{name}.json")) for name in ("compiled", "interpreted"))
print("interpreted", interpreted["commands_per_s"], "commands/s; compiled", compiled["commands_per_s"])
assert compiled["digest"] == interpreted["digest"], "the compiled build decides other events"
print("the events are the same, byte by byte")
PY
