"""Acting as another system user, in one thread only."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import ConfigurationError
from gitlab_backup.instance.identity import account_of, account_owning, account_to_become, acting_as
from tests.support.accounts import is_root

if TYPE_CHECKING:
    from pathlib import Path

needs_root = pytest.mark.skipif(not is_root(), reason="only root can act as somebody else")


def identity() -> tuple[object, ...]:
    return os.getresuid(), os.getresgid(), os.getgroups()


def test_an_account_has_the_ids_of_its_system_user() -> None:
    """`account_of` says what the user database says."""
    root = account_of("root")

    assert (root.name, root.uid, root.gid) == ("root", 0, 0)
    assert 0 in root.groups


def test_a_system_user_that_does_not_exist_is_a_matter_of_configuration() -> None:
    """The error names the user, and the setting that is to be corrected."""
    with pytest.raises(ConfigurationError, match="no-such-user-here") as caught:
        account_of("no-such-user-here")

    assert "gitlab.user" in str(caught.value.hint)


def test_the_owner_of_a_path_is_found(tmp_path: Path) -> None:
    """`account_owning` goes by the file, not by this process."""
    if not is_root():
        assert os.geteuid() == account_owning(tmp_path).uid
        return
    nobody = account_of("nobody")
    os.chown(tmp_path, nobody.uid, nobody.gid)

    assert nobody == account_owning(tmp_path)


@needs_root
def test_an_owner_without_a_name_is_said(tmp_path: Path) -> None:
    """A user id that no system user has cannot be acted as."""
    os.chown(tmp_path, 3_999_999, 0)

    with pytest.raises(ConfigurationError, match="3999999"):
        account_owning(tmp_path)


def test_the_owner_of_what_is_not_there_is_said(tmp_path: Path) -> None:
    """A missing path is named."""
    with pytest.raises(ConfigurationError, match="missing"):
        account_owning(tmp_path / "missing")


@needs_root
def test_only_the_thread_that_asks_becomes_another() -> None:
    """While one thread acts as `nobody`, another that was there before keeps root's ids and root's groups."""
    nobody, before = account_of("nobody"), identity()
    inside, seen, other_identity = threading.Event(), threading.Event(), []

    def look() -> None:
        inside.wait()
        other_identity.append(identity())
        seen.set()

    other = threading.Thread(target=look)
    other.start()
    try:
        with acting_as(nobody):
            own = identity()
            inside.set()
            seen.wait()
    finally:
        inside.set()
        other.join()

    assert [before] == other_identity
    assert ((0, nobody.uid, 0), (0, nobody.gid, 0), list(nobody.groups)) == own
    assert before == identity()


@needs_root
def test_the_kernel_takes_files_made_inside_for_those_of_the_account(tmp_path: Path) -> None:
    """The effective user counts for the kernel, which is what `connect(2)` shows to the other side."""
    tmp_path.chmod(0o777)
    nobody = account_of("nobody")
    directory = os.open(tmp_path, os.O_PATH)

    with acting_as(nobody):
        os.close(os.open("made", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)

    assert (nobody.uid, nobody.gid) == ((tmp_path / "made").stat().st_uid, (tmp_path / "made").stat().st_gid)


@needs_root
@pytest.mark.parametrize("error", [RuntimeError, PermissionError, KeyboardInterrupt])
def test_whatever_the_block_raises_comes_out_as_it_was(error: type[BaseException]) -> None:
    """The thread is itself again, and the block's own error is not taken for one of the change of user."""
    before = identity()

    with pytest.raises(error), acting_as(account_of("nobody")):
        raise error

    assert before == identity()


@needs_root
def test_who_is_not_root_cannot_become_another() -> None:
    """Without the right to change users, the error says so, and nothing has changed."""
    with acting_as(account_of("nobody")):
        before = identity()
        with pytest.raises(ConfigurationError, match="daemon") as caught, acting_as(account_of("daemon")):
            pass
        after = identity()

    assert before == after
    assert "root" in str(caught.value.hint)


def test_a_machine_whose_system_calls_are_unknown_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better no backup than one that called some other system call as root."""
    monkeypatch.setattr("platform.machine", lambda: "pdp11")

    with pytest.raises(ConfigurationError, match="pdp11"), acting_as(account_of("root")):
        pass


@needs_root
def test_only_root_and_only_for_another_is_there_somebody_to_become() -> None:
    """No change of user is made for nobody in particular, for oneself, or where it would be refused."""
    nobody = account_of("nobody")

    assert account_to_become("nobody") == nobody
    assert account_to_become(None) is None
    assert account_to_become("root") is None
    with acting_as(nobody):
        assert account_to_become("daemon") is None
