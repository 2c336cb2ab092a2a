"""The component `config`: what is in it, and that nothing is ever put in the place of what it was taken from."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup import Backup, BackupState, Instance
from gitlab_backup.errors import BackupFailedError, CancelledError, RefusedError, UsageError
from gitlab_backup.events import Event, Noticed, Status
from gitlab_backup.streams.cancel import Cancellation
from tests.archivers.files_run import instance as without_databases
from tests.support.compare import tree

if TYPE_CHECKING:
    from pathlib import Path

SECRETS = '{"gitlab_rails": {"db_key_base": "KEY"}}'


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A directory as an Omnibus installation's /etc: with a key that is kept elsewhere, and old archives."""
    etc = tmp_path / "etc"
    gitlab = etc / "gitlab"
    for directory in (gitlab / "trusted-certs", gitlab / "ssl", gitlab / "config_backup", etc / "ssh", etc / "letters"):
        directory.mkdir(parents=True)
        directory.chmod(0o755)
    (gitlab / "gitlab.rb").write_text("external_url 'https://gitlab.example.com'\n")
    (gitlab / "gitlab-secrets.json").write_text(SECRETS)
    (gitlab / "gitlab-secrets.json").chmod(0o600)
    (gitlab / "trusted-certs" / "ca.crt").write_text("CERTIFICATE")
    (gitlab / "config_backup" / "gitlab_config_1.tar").write_text("OLD")
    (etc / "letters" / "key.pem").write_text("TLS KEY")
    (gitlab / "ssl" / "gitlab.example.com.key").symlink_to("../../letters/key.pem")
    (etc / "ssh" / "ssh_host_rsa_key").write_text("HOST KEY")
    (etc / "ssh" / "sshd_config").write_text("not a key")
    return etc


@pytest.fixture
def instance(etc: Path, tmp_path: Path) -> Instance:
    """An Omnibus installation of which only the configuration matters."""
    (tmp_path / "root").mkdir()
    return evolve(
        without_databases(tmp_path / "root"),
        installation="omnibus",
        backup_path=tmp_path / "backups",
        secrets_file=etc / "gitlab" / "gitlab-secrets.json",
        configuration=(etc / "gitlab", etc / "ssh" / "ssh_host_rsa_key"),
    )


def back_up(instance: Instance, **options: object) -> Backup:
    """Back up the configuration alone."""
    return Backup.create(instance, only=["config"], **options)  # type: ignore[arg-type]


def test_what_it_has(instance: Instance, etc: Path) -> None:
    """All that was named, links followed, under names that say where it was; tar reads it, and nobody else may."""
    backup = back_up(instance)
    archive = backup.path / "config.tar.gz"
    assert 0o600 == stat.S_IMODE(archive.stat().st_mode)
    listed = subprocess.run(["tar", "-tzf", archive], capture_output=True, text=True, check=True).stdout.split()
    top = f".{etc}"
    files = ("gitlab-secrets.json", "gitlab.rb", "ssl/gitlab.example.com.key", "trusted-certs/ca.crt")
    assert [
        *(f"{top}/gitlab/{name}" for name in files),
        f"{top}/ssh/ssh_host_rsa_key",
    ] == [name for name in listed if not name.endswith("/")]
    assert len(set(listed)) == len(listed)
    key = ["tar", "-xzOf", str(archive), f"{top}/gitlab/ssl/gitlab.example.com.key"]
    assert "TLS KEY" == subprocess.run(key, capture_output=True, text=True, check=True).stdout
    assert not backup.verify().damages
    assert ["config"] == [component.id for component in backup.components]


def test_the_warning(instance: Instance) -> None:
    """Whoever looks at the run or at the manifest is told what the archive opens; that is no flaw of the backup."""
    events: list[Event] = []
    backup = back_up(instance, observer=events.append)
    assert backup.manifest is not None
    (warning,) = backup.manifest.warnings
    assert "who can read it can read encrypted columns" in warning
    assert f"warning: {warning}" in [event.message for event in events if isinstance(event, Noticed)]
    assert BackupState.COMPLETE is backup.state


def test_only_where_it_is_asked_for(instance: Instance) -> None:
    """By default it is not even mentioned, so that a backup without it is one of everything."""
    assert "config" not in [item.component.id for item in Backup.plan(instance)]
    assert "config" in [item.component.id for item in Backup.plan(instance, include=["config"])]
    assert ["config"] == [item.component.id for item in Backup.plan(instance, only=["config"]) if not item.left_out]
    assert "config" not in [item.component.id for item in Backup.plan(instance, include=["config"], skip=["config"])]


def test_it_needs_the_secrets(instance: Instance) -> None:
    """Without the secrets the rest is of no use: the backup fails before anything is read, and says what to do."""
    with pytest.raises(BackupFailedError, match=r"gitlab-secrets\.json was not found") as caught:
        back_up(evolve(instance, secrets_file=None))
    assert "root" in str(caught.value.hint)


def test_what_cannot_be_read_is_named(instance: Instance, etc: Path) -> None:
    """What is no file, leads nowhere or in a circle is warned of, and all the rest is there."""
    (etc / "gitlab" / "nowhere").symlink_to("/nonexistent")
    (etc / "gitlab" / "circle").symlink_to(".")
    os.mkfifo(etc / "gitlab" / "pipe")
    backup = back_up(instance)
    assert backup.manifest is not None
    record = backup.manifest.component("config")
    assert record is not None
    assert Status.WARNING is record.status
    for name, reason in (("nowhere", "leads nowhere"), ("circle", "leads back"), ("pipe", "neither a file")):
        assert [each for each in record.warnings if f"/gitlab/{name} " in each and reason in each]
    assert 3 == len(record.warnings)
    assert not backup.verify().damages


def test_a_backup_path_in_it_is_refused(instance: Instance, etc: Path) -> None:
    """A backup does not swallow itself, nor the backups before it."""
    with pytest.raises(RefusedError, match="lies inside"):
        back_up(evolve(instance, backup_path=etc / "gitlab" / "backups"))


@pytest.mark.parametrize("existing", [False, True])
def test_restoring(instance: Instance, etc: Path, tmp_path: Path, *, existing: bool) -> None:
    """It is extracted into a new or an empty directory, private, and what is in place stays as it is."""
    backup = back_up(instance)
    before = tree(etc)
    place = tmp_path / "new" / "config"
    if existing:
        place.mkdir(parents=True)
    result = backup.restore(instance, only=["config"], config_to=place)
    assert 0o700 == stat.S_IMODE(place.stat().st_mode)
    found = place / etc.relative_to("/")
    assert SECRETS == (found / "gitlab" / "gitlab-secrets.json").read_text()
    assert 0o600 == stat.S_IMODE((found / "gitlab" / "gitlab-secrets.json").stat().st_mode)
    assert "TLS KEY" == (found / "gitlab" / "ssl" / "gitlab.example.com.key").read_text()
    assert not (found / "gitlab" / "config_backup").exists()
    assert before == tree(etc)
    assert [place.name] == [entry.name for entry in place.parent.iterdir()]
    (step,) = result.next_steps
    assert str(place) in step


def test_nothing_is_overwritten(instance: Instance, etc: Path, tmp_path: Path) -> None:
    """A directory that has something in it is refused, as is what is no directory; nothing changes."""
    backup = back_up(instance)
    before = tree(etc)
    file = tmp_path / "file"
    file.touch()
    for place in (etc / "gitlab", file):
        with pytest.raises(RefusedError, match="not an empty directory"):
            backup.restore(instance, only=["config"], config_to=place)
    assert before == tree(etc)


def test_what_has_to_be_said(instance: Instance, tmp_path: Path) -> None:
    """Where to is always said; and to say only that restores nothing."""
    backup = back_up(instance)
    with pytest.raises(UsageError, match="is not said"):
        backup.restore(instance, include=["config"])
    with pytest.raises(UsageError, match="--config-to is for"):
        backup.restore(instance, config_to=tmp_path / "new")
    # It is all that the backup has: without being asked for, nothing is left.
    with pytest.raises(RefusedError, match="nothing of the backup"):
        backup.restore(instance)


def test_a_limit_on_the_rate(instance: Instance, etc: Path, tmp_path: Path) -> None:
    """A backup, a verification and a restore take at least as long as the limit says, but for the share saved up."""
    (etc / "gitlab" / "large").write_bytes(bytes(1 << 20))
    started = time.monotonic()
    backup = back_up(instance, rate_limit=2 << 20, compression="none")
    made = time.monotonic()
    backup.verify(rate_limit=2 << 20)
    verified = time.monotonic()
    backup.restore(instance, only=["config"], config_to=tmp_path / "new", verify=False, rate_limit=2 << 20)
    restored = time.monotonic()
    # Half a second's share is read; a quarter may be saved up, and a hundredth is not worth waiting.
    assert min(made - started, verified - made, restored - verified) > 0.5 - 0.25 - 0.01


def test_a_limit_does_not_delay_an_interruption(instance: Instance, etc: Path) -> None:
    """A backup that waits for a quarter of an hour is cancelled at once. A limit that is too low is refused."""
    (etc / "gitlab" / "large").write_bytes(bytes(1 << 20))
    cancel = Cancellation()

    def stop(event: Event) -> None:
        # Told between what is read and the wait for it.
        if type(event).__name__ == "ComponentProgressed":
            cancel.request()

    with pytest.raises(CancelledError):
        back_up(instance, rate_limit=1 << 10, observer=stop, cancel=cancel)
    with pytest.raises(UsageError, match="10 bytes a second"):
        back_up(instance, rate_limit=10)
