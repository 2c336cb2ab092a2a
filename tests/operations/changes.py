"""What happens to an installation between a backup and a restore."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation
_WIPE = """
DO $$
DECLARE s text;
BEGIN
    FOR s IN SELECT nspname FROM pg_namespace
             WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
    LOOP EXECUTE format('DROP SCHEMA %I CASCADE', s); END LOOP;
    FOR s IN SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
    LOOP EXECUTE format('DROP TABLE IF EXISTS %s CASCADE', s); END LOOP;
END
$$
"""


def change(installation: ThrowawayInstallation, *, seed: int) -> None:
    """Change some rows, refs and files, as a living GitLab does. The same seed makes the same changes."""
    chance = random.Random(seed)
    for name, sql in (  # numbers only are put into the statements
        ("main", f"INSERT INTO schema_migrations (version) VALUES ('99{seed:012}') ON CONFLICT DO NOTHING"),  # noqa: S608
        ("main", f"CREATE TABLE IF NOT EXISTS made_later_{seed} AS SELECT {seed} AS number"),
        ("ci", f"CREATE TABLE IF NOT EXISTS made_later_{seed} AS SELECT {seed} AS number"),
    ):
        # As GitLab itself does: what is made belongs to its role.
        installation.cluster.psql(f"SET ROLE gitlab; {sql}", installation.databases[name])
    for directory in installation.directories.values():
        files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
        victim = chance.choice(files)
        if chance.random() < 0.5:
            victim.unlink()
        else:
            victim.write_bytes(chance.randbytes(1000))
        (directory / f"made-later-{seed}").write_bytes(chance.randbytes(500))
    present = [r for r in installation.repositories if (installation.repository_path(r) / "HEAD").exists()]
    chosen = chance.sample(present, 3)
    shutil.rmtree(installation.repository_path(chosen[0]))
    for repository in chosen[1:]:
        path = installation.repository_path(repository)
        (path / "description").write_text(f"changed {seed}\n")
        shutil.rmtree(path / "refs" / "heads", ignore_errors=True)
        (path / "refs" / "heads").mkdir()
        (path / "packed-refs").unlink(missing_ok=True)
    storage = installation.storages["default"]
    new = storage / "@hashed" / f"{seed:02}"[-2:] / "00" / f"made-later-{seed}.git"
    if not new.exists():
        owner = storage.stat()
        subprocess.run(["git", "init", "--quiet", "--bare", "--template=", new], check=True)
        for path in (new, new.parent, new.parent.parent, *new.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)


def wipe(installation: ThrowawayInstallation) -> None:
    """Lose everything but the configuration and the backups."""
    for name in installation.databases.values():
        installation.cluster.psql(_WIPE, name)
    for directory in installation.directories.values():
        for entry in directory.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for storage in installation.storages.values():
        for entry in storage.iterdir():
            if not entry.name.startswith(("+gitaly", "@pools")):
                shutil.rmtree(entry)
