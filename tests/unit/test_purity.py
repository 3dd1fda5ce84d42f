"""The aggregate's rules, enforced by reading its syntax trees."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AGGREGATE = sorted((ROOT / "exchange" / "aggregate").glob("*.py"))
STANDARD_LIBRARY_ALLOWED = {"bisect", "collections", "hashlib", "heapq", "typing", "__future__"}


def imports(path: Path) -> set[str]:
    """Return the absolute names of what a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names.add(node.module or "")
    return names


def violations(tree: ast.AST) -> list[str]:
    """Return what the aggregate's rules forbid: floats, true division, sets, builtins that look outside."""
    found = []
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            found.append(f"{line}: float constant")
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            found.append(f"{line}: true division")
        if isinstance(node, ast.Set | ast.SetComp):
            found.append(f"{line}: set")
        if isinstance(node, ast.Name) and node.id in {
            "float",
            "set",
            "frozenset",
            "hash",
            "id",
            "open",
            "print",
        }:
            found.append(f"{line}: {node.id}")
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.Global | ast.Nonlocal):
            found.append(f"{line}: {type(node).__name__}")
    return found


@pytest.mark.parametrize("path", AGGREGATE, ids=lambda path: path.name)
def test_aggregate_uses_integers_only(path: Path) -> None:
    """No float, no `/`, no set, no hash order, no I/O, no coroutine in the rules."""
    assert [] == violations(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", AGGREGATE, ids=lambda path: path.name)
def test_aggregate_imports_only_events_and_itself(path: Path) -> None:
    """The rules see neither clock nor randomness nor environment nor a logger."""
    for name in imports(path):
        top = name.split(".")[0]
        assert (
            top in STANDARD_LIBRARY_ALLOWED
            or name == "msgspec"
            or top == "events"
            or name.startswith("exchange.aggregate")
        ), f"{path.name} imports {name}"


def test_events_import_nothing_of_ours() -> None:
    """The language and the log stand alone."""
    for path in (ROOT / "events").glob("*.py"):
        assert not {name for name in imports(path) if name.split(".")[0] == "exchange"}, path.name


def test_processes_do_not_import_each_other() -> None:
    """Writer, liquidator, intake and feed meet in the log, never in Python."""
    processes = {"writer", "liquidator", "intake", "feed", "archiver"}
    for process in processes:
        single = ROOT / "exchange" / f"{process}.py"
        for path in [single] if single.exists() else (ROOT / "exchange" / process).rglob("*.py"):
            for name in imports(path):
                parts = name.split(".")
                other = parts[1] if parts[0] == "exchange" and len(parts) > 1 else ""
                assert other not in processes - {process}, f"{path.name} imports {name}"


def test_only_apply_changes_state() -> None:
    """Outside state, book and account no code of the aggregate assigns to an attribute of the state."""
    changers = {
        "state.py",
        "image.py",  # a state that nobody has seen yet
        "book.py",
        "account.py",
        "market.py",
        "order.py",
        "origins.py",
        "posting.py",
        "scratch.py",  # copies only
        "triggers.py",
        "turn.py",
        "waterfall.py",
    }
    for path in AGGREGATE:
        if path.name in changers:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AugAssign | ast.AnnAssign)
                else []
            )
            for target in targets:
                if isinstance(target, ast.Attribute):
                    owner = ast.unparse(target.value)
                    assert owner in {"self", "result", "known"}, f"{path.name}:{node.lineno}: {owner}"


def test_the_checker_sees_a_violation() -> None:
    """The rules above are not vacuous."""
    tree = ast.parse("x = 1 / 2\ny = 0.5\nfor i in {1, 2}:\n    pass\nz = hash(x)\n")
    assert 4 == len(violations(tree)), violations(tree)
    assert sys.version_info >= (3, 11)
