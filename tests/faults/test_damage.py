"""Whatever happens to a byte or a file of a backup: verification names it, and no restore takes it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitlab_backup import Backup, BackupStore
from gitlab_backup.errors import DamagedError, ExitStatus
from gitlab_backup.operations.prune import PruneOptions, prune
from gitlab_backup.retention import Rules
from tests.cli.program import Program
from tests.operations.pruned_store import id_at, lose, make_backup

from .outcomes import unchanged
from .schedule import FULL

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import World
    from .plugin import Injected

DOCUMENTS = ("SHA256SUMS",)


def _refuse(_: object) -> bool:
    raise AssertionError("the damage was not found before this was asked")


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> tuple[str, bytes | None]:
    """Return what is done to a file, and what comes of it; None where it is removed."""
    ways = ["delete", "extend"] + ["flip", "cut", "insert", "zeros"] * bool(content)
    way = draw(st.sampled_from(ways))
    at = draw(st.integers(0, max(0, len(content) - 1)))
    if way == "flip":
        bit = 1 << draw(st.integers(0, 7))
        return way, content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
    if way == "cut":
        return way, content[:at]
    if way == "insert":
        return way, content[:at] + draw(st.binary(min_size=1, max_size=8)) + content[at:]
    if way == "extend":
        return way, content + draw(st.binary(min_size=1, max_size=2000))
    if way == "zeros":  # as a disk that has lost a block gives it back
        end = min(len(content), at + 512)
        return way, content[:at] + bytes(end - at) + content[end:]
    return way, None


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_any_damage_of_any_file(world: World, backup: Backup, injected: Injected) -> None:
    """It is found, and the file named; a restore is refused before anybody is asked to confirm it."""
    files = sorted(path for path in backup.path.rglob("*") if path.is_file())
    kinds = sorted({path.name for path in files if "repositories" not in path.parts})
    instance = world.target.instance()

    @settings(
        max_examples=600 if FULL else 25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )
    @given(data=st.data())
    def damage(data: st.DataObject) -> None:
        # There are many more files of repositories than others.
        by_kind = data.draw(st.sampled_from(kinds)) if data.draw(st.booleans()) else None
        file = data.draw(st.sampled_from([path for path in files if by_kind in {None, path.name}]))
        content = file.read_bytes()
        _, changed = data.draw(damaged(content))
        if changed == content:
            return  # zeros over zeros
        file.unlink() if changed is None else file.write_bytes(changed)
        name = str(file.relative_to(backup.path))
        try:
            found = {each.file for each in backup.verify().damages}
            # What is wrong in the list of digests shows as well, or only, on the files that it is about.
            assert name in found or (name in DOCUMENTS and found), found
            injected("damage", "reading")
            with pytest.raises(DamagedError) as caught:
                backup.restore(instance, confirm=_refuse)
            assert any(each in str(caught.value) for each in found)
            injected("damage", "restore")
        finally:
            file.write_bytes(content)
            file.chmod(0o600)

    damage()
    assert () == backup.verify().damages
    unchanged(world.target, world.before)


def test_any_two_files_that_changed_places(world: World, backup: Backup, injected: Injected) -> None:
    """Also where each is a whole file of its kind, both are named."""
    files = sorted(path for path in backup.path.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    instance = world.target.instance()

    @settings(max_examples=60 if FULL else 5)
    @given(pair=st.permutations(range(len(files))).map(lambda numbers: numbers[:2]))
    def exchange(pair: list[int]) -> None:
        one, two = (files[number] for number in pair)
        if one.read_bytes() == two.read_bytes():
            return
        aside = backup.path.parent / "aside"

        def turn() -> None:
            one.rename(aside)
            two.rename(one)
            aside.rename(two)

        turn()
        try:
            found = {each.file for each in backup.verify().damages}
            assert {str(path.relative_to(backup.path)) for path in (one, two)} <= found
            injected("damage", "reading")
            with pytest.raises(DamagedError):
                backup.restore(instance, confirm=_refuse)
            injected("damage", "restore")
        finally:
            turn()

    exchange()


def test_the_command_says_so_by_its_status(world: World, backup: Backup, injected: Injected) -> None:
    """Damage is status 4 of `verify` and of `restore all`."""
    archive = backup.path / "uploads.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    program = Program({**world.target.environment(), "GITLAB_PATH": str(world.target.root)})
    place = ("--backup-path", backup.path.parent)
    verified = program("verify", *place, backup.id)
    assert (ExitStatus.DAMAGED, True) == (verified.status, "uploads.tar.gz" in verified.out + verified.err)
    injected("damage", "reading")
    restored = program("restore", "all", *place, backup.id, "--yes", "--insecure-store")
    assert (ExitStatus.DAMAGED, True) == (restored.status, "uploads.tar.gz" in restored.err)
    injected("damage", "restore")


# The content of archives is not what pruning looks at: `verify` does.
@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("uploads.tar.gz", "delete"),
        *(
            (name, way)
            for name in ("manifest.json", "SHA256SUMS", "backup_information.json")
            for way in ("delete", "cut")
        ),
    ],
)
def test_pruning_leaves_damage_alone(tmp_path: Path, injected: Injected, name: str, way: str) -> None:
    """A backup that is not whole, as far as its documents tell, stands for no other, and is not deleted."""
    ids = [id_at(1_714_053_314 + number * 86_400) for number in range(3)]
    for each in ids:
        make_backup(tmp_path / "store", each)
    store = BackupStore(tmp_path / "store")
    store.path.chmod(0o700)
    if way == "delete":
        lose(store.path / ids[2], name)
    else:
        os.truncate(store.path / ids[2] / name, 20)
    done = prune(store, PruneOptions(rules=Rules(keep_last=1)))
    assert ([ids[2]], [ids[1]]) == ([each.name for each in done.left_alone], [each.name for each in done.kept])
    assert [ids[1], ids[2]] == list(store.ids())
    shutil.rmtree(store.path)
    injected("damage", "prune")
