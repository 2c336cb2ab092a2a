"""The configuration and the secrets on the command line: asked for, told of, and handed out beside what is in place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gitlab_backup import Backup

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

    from .program import Program


def test_all_of_it(installation: ThrowawayInstallation, program: Program, tmp_path: Path) -> None:
    """`--include config`, also from a file: a warning in every form; a restore leaves it alone until it is asked to."""
    config = installation.root / "config"
    secrets = (config / "secrets.yml").read_bytes()
    (without,) = [each for each in program("check", "--json").document["findings"] if each["about"] == "secrets"]
    assert "is not in the newest backup" in without["message"]
    assert "--include config" in without["to_do"]

    options = tmp_path / "options.toml"
    options.write_text('[backup.all]\ninclude = ["config"]\n')
    run = ("--config", options, "backup", "all", "--skip", "repositories")
    planned = program(*run, "--dry-run")
    assert [line for line in planned.out.splitlines() if line.split()[:2] == ["config", "config"]]
    warning = "this backup has the secrets and the keys of GitLab (config): who can read it can read the encrypted"
    assert f"\nwarning: {warning}" in planned.out
    result = program(*run, "--json")
    assert f"warning: {warning}" in result.err
    (told,) = result.document["warnings"]
    assert told.startswith(warning)
    assert {"complete"} == {each["status"] for each in result.document["components"] if each["id"] == "config"}

    assert ", secrets " in program("list").out.splitlines()[-1]
    assert [True] == [each["has_secrets"] for each in program("list", "--json").document]
    shown = program("show", "latest")
    assert f"warning: {told}" in shown.out.splitlines()
    assert [told] == program("show", "latest", "--json").document["warnings"]
    (backup,) = Backup.all(installation.backup_path)
    manifest = json.loads((backup.path / "manifest.json").read_text())
    assert [told] == manifest["warnings"]
    assert "config" in manifest["selected"]

    restore = ("restore", "all", "latest", "--only", "lfs", "--yes", "--json")
    alone = program(*restore)
    assert (0, ["lfs"]) == (alone.status, [each["id"] for each in alone.document["components"]])
    assert [note for note in alone.document["notes"] if "--include config --config-to DIRECTORY" in note]
    place = tmp_path / "restored"
    unsaid = program(*restore, "--include", "config")
    assert (2, "Name a new or empty directory") == (unsaid.status, unsaid.document["error"]["hint"][:29])
    both = program(*restore, "--include", "config", "--config-to", place)
    assert (0, ["lfs", "config"]) == (both.status, [each["id"] for each in both.document["components"]])
    assert secrets == (place / config.relative_to("/") / "secrets.yml").read_bytes()
    assert {"gitlab.yml", "secrets.yml", "database.yml"} <= {
        entry.name for entry in (place / config.relative_to("/")).iterdir()
    }
    assert secrets == (config / "secrets.yml").read_bytes()
