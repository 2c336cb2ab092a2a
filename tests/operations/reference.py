"""GitLab's own tool, as far as it matters for backups: the commands that it runs, and nothing of this project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING

from tests.support.installation import DIRECTORIES, VERSION
from tests.support.repositories import git

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

ID = f"1714053314_2024_04_25_{VERSION}"
_DECOMPRESS = {".gz": "gzip -cd", ".zst": "zstd -cd", ".sql": "cat", ".tar": "cat"}


def whole_seconds(installation: ThrowawayInstallation) -> None:
    """Give everything times that its archives can hold: tar alone keeps no fractions."""
    for directory in installation.directories.values():
        for parent, directories, files in os.walk(os.fsencode(directory), topdown=False):
            for path in (*(os.path.join(parent, name) for name in (*directories, *files)), parent):  # noqa: PTH118
                moment = os.lstat(path).st_mtime_ns // 10**9
                os.utime(path, (moment, moment), follow_symlinks=False)


def back_up(installation: ThrowawayInstallation) -> Path:
    """Make a backup in the installation's backup path, and return its directory."""
    path = installation.backup_path / ID
    (path / "db").mkdir(parents=True)
    information = {
        "metadata_version": 2,
        "backup_id": ID,
        "created_at": "2024-04-25T13:55:14Z",
        "gitlab_version": VERSION,
    }
    (path / "backup_information.json").write_text(json.dumps(information, indent=2))
    for connection, database in installation.databases.items():
        file = "database.sql.gz" if connection == "main" else f"{connection}_database.sql.gz"
        _shell(installation, f"pg_dump --clean --if-exists {database} | gzip -c -1 > {path}/db/{file}")
    for component, (_, excluded) in DIRECTORIES.items():
        exclude = f"--exclude=lost+found {f'--exclude=./{excluded}' if excluded else ''}"
        source = os.path.realpath(installation.directories[component])
        tar = f"tar {exclude} --directory={source} --create --file=- ."
        _shell(installation, f"{tar} | gzip -c -1 > {path}/{component}.tar.gz")
    for repository in installation.repositories:
        _bundle(installation.repository_path(repository), path, f"{repository.storage}/{repository.relative_path}")
    return path


def _bundle(repository: Path, backup: Path, name: str) -> None:
    """Back a repository up as gitaly-backup 17.6 does."""
    top = backup / "repositories"
    stem = f"{name}/{ID}/001"
    step = {
        "bundle_path": f"{stem}.bundle",
        "ref_path": f"{stem}.refs",
        "custom_hooks_path": f"{stem}.custom_hooks.tar",
    }
    head = ["empty = true", "non_existent = true", "object_format = ''"]
    if repository.exists():
        (top / stem).parent.mkdir(parents=True)
        # With an empty repository, `git show-ref` ends with 1.
        refs = git(repository, "for-each-ref", "--format=%(objectname) %(refname)")
        if refs and (commit := _resolved_head(repository)):
            refs = commit + b" HEAD\n" + refs
        (top / step["ref_path"]).write_bytes(refs)
        if refs:
            git(repository, "bundle", "create", "--quiet", str(top / step["bundle_path"]), "--all")
        if (repository / "custom_hooks").exists():
            hooks = top / step["custom_hooks_path"]
            subprocess.run(["tar", "--create", f"--file={hooks}", "custom_hooks"], cwd=repository, check=True)
        head = [
            f"empty = {'false' if refs else 'true'}",
            "non_existent = false",
            f"object_format = '{git(repository, 'rev-parse', '--show-object-format').decode().strip()}'",
            f"head_reference = '{git(repository, 'symbolic-ref', 'HEAD').decode().strip()}'",
        ]
    lines = [*head, "", "[[steps]]", *(f"{key} = '{value}'" for key, value in step.items()), ""]
    manifests = top / "manifests" / name
    manifests.mkdir(parents=True)
    for file in (f"{ID}.toml", "+latest.toml"):
        (manifests / file).write_text("\n".join(lines))


def _resolved_head(repository: Path) -> bytes:
    try:
        return git(repository, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    except AssertionError:
        return b""


def extract(installation: ThrowawayInstallation, archive: Path, directory: Path, *options: str) -> None:
    """Extract an archive into a directory, as `gitlab-backup-cli` does; the Rake task has more options."""
    tar = " ".join(("tar", *options, f"--directory={directory}", "--extract", "--file=-"))
    _shell(installation, f"{_DECOMPRESS[archive.suffix]} {archive} | {tar}")


def restore(installation: ThrowawayInstallation, backup: Path) -> None:
    """Restore a backup into a wiped installation."""
    for connection, database in installation.databases.items():
        (dump,) = backup.glob(f"db/{'' if connection == 'main' else f'{connection}_'}database.sql*")
        _shell(installation, f"{_DECOMPRESS[dump.suffix]} {dump} | psql -X -q {database} >/dev/null")
    for component, directory in installation.directories.items():
        (archive,) = backup.glob(f"{component}.tar*")
        extract(installation, archive, directory)
    manifests = backup / "repositories" / "manifests"
    for latest in sorted(manifests.glob("**/+latest.toml")):
        storage, _, relative = str(latest.parent.relative_to(manifests)).partition("/")
        _fetch(latest, backup / "repositories", installation.storages[storage] / relative)


def _fetch(latest: Path, top: Path, target: Path) -> None:
    document = tomllib.loads(latest.read_text())
    if document["non_existent"]:
        return
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    branch = document["head_reference"].removeprefix("refs/heads/")
    options = ("--bare", "--quiet", "--template=", f"--object-format={document['object_format']}")
    git(target, "init", *options, f"--initial-branch={branch}")
    for step in document["steps"]:
        if (top / step["bundle_path"]).exists():
            git(target, "fetch", "--quiet", str(top / step["bundle_path"]), "+refs/*:refs/*")
        if (top / step["custom_hooks_path"]).exists():
            subprocess.run(["tar", "--extract", f"--file={top / step['custom_hooks_path']}"], cwd=target, check=True)


def _shell(installation: ThrowawayInstallation, command: str) -> None:
    """Run a pipeline of which every part must succeed, connected as GitLab's own role is."""
    cluster = installation.cluster
    environment = {
        **installation.environment(),
        "PGHOST": str(cluster.socket_directory),
        "PGPORT": str(cluster.port),
        "PGUSER": "gitlab",
        "PGPASSWORD": "throwaway",
    }
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}"
