"""What the person who backs up or restores should know, and must still do afterwards."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ..components import Holder
from ..errors import DocumentError
from ..manifest import Manifest
from .plan import NOT_SELECTED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from ..instance import Instance
    from ..store import BackupStore
    from .plan import PlannedComponent


def secrets_digest(instance: Instance) -> str | None:
    """Return the SHA-256 of the secrets file, in hexadecimal; None where there is none that can be read.

    A manifest has no more of it: enough to say whether a file is the one that belongs to the dump.
    """
    if instance.secrets_file is None:
        return None
    try:
        return hashlib.sha256(instance.secrets_file.read_bytes()).hexdigest()
    except OSError:
        return None


def same_secrets(manifest: Manifest | None, instance: Instance) -> bool | None:
    """Return whether the secrets file is equal to that of the time of the backup; None where that is not known."""
    recorded, current = manifest.secrets_sha256 if manifest is not None else None, secrets_digest(instance)
    return None if recorded is None or current is None else recorded == current


def about_secrets(instance: Instance, *, same: bool | None) -> str:
    """Say whether the encrypted columns of a restored database will be readable."""
    name = instance.secrets_file or "gitlab-secrets.json"
    if same is None:
        return f"{name} must be the same as at the time of the backup: encrypted columns cannot be read with another"
    if not same:
        return f"{name} is NOT the same as at the time of the backup: encrypted columns will not be readable with it"
    return f"{name} is the same as at the time of the backup"


def about_config(components: Collection[str]) -> tuple[str, ...]:
    """Return the warning about a backup of `components`, where the secrets are among them."""
    if "config" not in components:
        return ()
    what = "the encrypted columns of the databases beside them" if "db" in components else "encrypted columns"
    warning = f"this backup has the secrets and the keys of GitLab (config): who can read it can read {what}, too"
    return (f"{warning}, so keep it as you would keep them",)


def about_missing(store: BackupStore, instance: Instance, planned: Iterable[PlannedComponent]) -> dict[str, str]:
    """Return a warning for each component that is left out as its directory is missing, but that an earlier backup has.

    A file system that is not mounted looks like that.
    """
    missing = {
        item.component.id: directory.path
        for item in planned
        if item.left_out not in {None, NOT_SELECTED}
        and item.component.holder is Holder.DIRECTORY
        and not (directory := instance.directory(item.component)).path.exists()
    }
    warnings = {}
    for backup_id in reversed(store.ids()):
        if not missing:
            break
        try:
            manifest = Manifest.read(store.path / backup_id)
        except DocumentError:
            continue
        for record in manifest.components if manifest is not None else ():
            if record.id in missing and record.bytes_read:
                warnings[record.id] = (
                    f"{missing.pop(record.id)} does not exist, but the backup {backup_id} has what was in it: mount it,"
                    f" or leave it out with --skip {record.id}"
                )
    return warnings


def next_steps(
    instance: Instance, components: Collection[str], *, secrets: bool | None, config_to: Path | None = None
) -> tuple[str, ...]:
    """Return what an administrator must still do after a restore of `components`, in this order.

    From GitLab's documentation, "Restore GitLab". `secrets` is what `same_secrets` has found, `config_to` the directory
    that the component `config` was extracted into.
    """
    omnibus = instance.installation == "omnibus"
    rake = "`gitlab-rake {}`" if omnibus else f"`bundle exec rake {{}} RAILS_ENV={instance.rails_env}`"
    steps = []
    if "config" in components:
        steps.append(f"Compare what is in {config_to} with what is in place, copy what is wanted, and remove the rest.")
    if set(components) <= {"config"}:
        return tuple(steps)
    if "db" in components and not secrets:
        name = instance.secrets_file or ("/etc/gitlab/gitlab-secrets.json" if omnibus else "config/secrets.yml")
        steps.append(f"Put the {name} of the time of the backup in its place, if it is not the same.")
    if omnibus:
        steps += ["Run `gitlab-ctl reconfigure`.", "Run `gitlab-ctl restart`."]
    else:
        steps.append("Restart GitLab's services.")
    steps.append(f"Run {rake.format('gitlab:check SANITIZE=true')}.")
    if "db" in components:
        steps.append(f"Run {rake.format('gitlab:doctor:secrets')}.")
    if "repositories" in components:
        pools = rake.format("gitlab:backup:repo:reset_pool_repositories")
        steps.append(f"Run {pools}: object pools are not part of a backup.")
    if {"db", "repositories"} & set(components):
        steps.append(f"Run {rake.format('cache:clear')}.")
    return tuple(steps)
