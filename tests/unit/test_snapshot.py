"""Snapshot files: written whole, read only when whole, the newest usable one first, old ones deleted."""

import os
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from events.snapshot import KEPT, Snapshot, SnapshotError, find, load, load_newest, save

LOG_ID = "a" * 32
OTHER_LOG_ID = "b" * 32


def snapshot(seq: int, log_id: str = LOG_ID) -> Snapshot:
    """Return a snapshot whose body names its entry."""
    return Snapshot(
        log_id=log_id,
        seq=seq,
        events=10 * seq,
        chain_hash=bytes(32),
        command_checksum=bytes(32),
        digest=bytes(32),
        rules_version=1,
        body=b"state %d" % seq,
    )


def body_of(loaded: Snapshot) -> bytes:
    """Restore a snapshot, here to its body."""
    return loaded.body


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All fields come back, from a directory that did not exist."""
    path = save(tmp_path / "snapshots", snapshot(7))
    assert snapshot(7) == load(path)
    assert [path] == list((tmp_path / "snapshots").iterdir())


def test_the_newest_is_loaded(tmp_path: Path) -> None:
    """By number of the entry, not by the order of writing."""
    for seq in (900, 1_000, 20):
        save(tmp_path, snapshot(seq))
    assert (snapshot(1_000), b"state 1000") == load_newest(tmp_path, body_of)


def test_no_directory_and_no_file_are_no_snapshot(tmp_path: Path) -> None:
    """Then there is none, and nothing to warn of."""
    assert None is load_newest(tmp_path / "missing", body_of)
    assert None is load_newest(tmp_path, body_of)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    """Saving deletes older ones of the same log, and none of another."""
    save(tmp_path, snapshot(1, OTHER_LOG_ID))
    for seq in range(1, KEPT + 3):
        save(tmp_path, snapshot(seq))
    assert list(range(KEPT + 2, 2, -1)) == [load(path).seq for path in find(tmp_path, LOG_ID)]
    assert 1 == len(find(tmp_path, OTHER_LOG_ID))


@pytest.mark.parametrize("bit", range(8))
def test_every_changed_byte_is_noticed(tmp_path: Path, bit: int) -> None:
    """One bit flipped anywhere in the file: the snapshot is refused."""
    path = save(tmp_path, snapshot(7))
    content = path.read_bytes()
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(SnapshotError):
            load(path)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    """A file that ends early, anywhere, or late, is refused."""
    path = save(tmp_path, snapshot(7))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(SnapshotError):
            load(path)
    path.write_bytes(content + b"\x00")
    with pytest.raises(SnapshotError):
        load(path)


def test_an_unknown_schema_version_is_named(tmp_path: Path) -> None:
    """A snapshot of a later build is refused, and the refusal says which version it has."""
    path = save(tmp_path, snapshot(7))
    content = path.read_bytes()
    path.write_bytes(content[:16] + (9).to_bytes(4, "big") + content[20:])
    with pytest.raises(SnapshotError, match="schema version 9 is unknown; this build reads 1"):
        load(path)


def test_an_unusable_one_is_skipped_for_the_one_before(tmp_path: Path) -> None:
    """Damaged, mismatching, of another log: each is skipped with a warning that says why."""
    for seq in (1, 2, 3):
        save(tmp_path, snapshot(seq))
    save(tmp_path, snapshot(4, OTHER_LOG_ID))
    (newest, _, _) = find(tmp_path, LOG_ID)
    newest.write_bytes(newest.read_bytes()[:-1])

    def restore(loaded: Snapshot) -> bytes:
        if loaded.seq == 2:
            raise SnapshotError("its digest is another")
        return loaded.body

    with capture_logs() as lines:
        found = load_newest(tmp_path, restore, log_id=LOG_ID)

    assert (snapshot(1), b"state 1") == found
    assert [
        f"it is of the log {OTHER_LOG_ID}, not of {LOG_ID}",
        f"it holds {len(msgspec.msgpack.encode(snapshot(3))) - 1} bytes of "
        f"{len(msgspec.msgpack.encode(snapshot(3)))}",
        "its digest is another",
    ] == [line["reason"] for line in lines]
    assert {("snapshot_skipped", "warning")} == {(line["event"], line["log_level"]) for line in lines}


def test_a_crash_before_the_rename_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not renamed is no snapshot, and the next save removes it."""
    save(tmp_path, snapshot(1))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", _crash)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, snapshot(2))
    assert 2 == len(list(tmp_path.iterdir()))
    assert (snapshot(1), b"state 1") == load_newest(tmp_path, body_of)

    save(tmp_path, snapshot(3))
    assert [3, 1] == [load(path).seq for path in find(tmp_path)]
    assert 2 == len(list(tmp_path.iterdir()))


def test_the_content_is_on_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is flushed, then renamed, then the directory is flushed."""
    steps: list[str] = []
    flush, rename = os.fsync, Path.rename

    def note_flush(descriptor: int) -> None:
        steps.append("flush")
        flush(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(Path, "rename", note_rename)
    save(tmp_path, snapshot(1))
    assert ["flush", "rename", "flush"] == steps


def _crash(path: Path, target: Path) -> Path:
    raise KeyboardInterrupt
