"""What a shell offers where TAB is pressed: driven in the shells themselves."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .program import Program

SHARE = Path(__file__).parents[2] / "cli" / "share"
BASH = SHARE / "bash-completion" / "completions" / "gitlab-backup-cli"
ZSH = SHARE / "zsh" / "site-functions"
FISH = SHARE / "fish" / "vendor_completions.d" / "gitlab-backup-cli.fish"

OLD, NEW = "1714053314_2024_04_25_17.0.0-pre", "1714139714_2024_04_26_17.0.0-pre"
LEGACY = "1613053314_gitlab_backup.tar"

TYPED = {
    "gitlab-backup-cli backup all --only up": ["backup", "all", "--only", "uploads"],
    "gitlab-backup-cli backup all --skip=lfs,up": ["backup", "all", "--skip=lfs,uploads"],
    "gitlab-backup-cli show 17141": ["show", NEW],
    "gitlab-backup-cli unpin 1": ["unpin", OLD],
    # What the command does not know may be a file.
    "gitlab-backup-cli backup all --log-file ./kee": ["backup", "all", "--log-file", "./keep.log"],
    # The words before are broken, as they are while somebody types.
    "gitlab-backup-cli --config /nowhere --backup-path '/no where' pi": [
        "--config",
        "/nowhere",
        "--backup-path",
        "/no where",
        "pin",
    ],
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A backup path with two backups, of which one is pinned, and one of the Rake task."""
    path = tmp_path / "store"
    for name in (OLD, NEW, f".{NEW}.partial", "foreign"):
        (path / name).mkdir(parents=True)
    (path / LEGACY).touch()
    (path / f".{OLD}.pinned").touch()
    (path / "keep.log").touch()
    return path


@pytest.fixture
def machine(bare: Program, tmp_path: Path, store: Path) -> Mapping[str, str]:
    """An environment in which the command completes as it does, and else says what it was given."""
    program = tmp_path / "bin" / "gitlab-backup-cli"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ -z "$_GITLAB_BACKUP_CLI_COMPLETE" ] || exec {sys.executable} -m gitlab_backup_cli "$@"\n'
        "printf 'given'; printf '|%s' \"$@\"; echo '|end'\n"
    )
    program.chmod(0o755)
    return {
        **bare.environment,
        "PATH": f"{program.parent}:{bare.environment['PATH']}",
        "TERM": "dumb",
        "GITLAB_BACKUP_CLI_BACKUP_PATH": str(store),
    }


@pytest.mark.parametrize(
    ("shell", "setup"),
    [
        (["bash", "--norc", "-i"], f"source {BASH}"),
        # A directory of functions, as that of a distribution: the first TAB loads the file, and must answer.
        (["zsh", "-f", "-i"], f"fpath+=({ZSH}); autoload -Uz compinit; compinit -u -D"),
    ],
    ids=["bash", "zsh"],
)
def test_typed(machine: Mapping[str, str], store: Path, shell: list[str], setup: str) -> None:
    """Names that are begun are ended by TAB: of options, commands, components, backups and files."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        shell,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=machine,
        cwd=store,
        start_new_session=True,
    )
    os.close(terminal)

    def until(mark: bytes) -> str:
        read = b""
        while mark not in read:
            read += os.read(controller, 65536)
        return read.decode()

    try:
        # The mark is not in what the terminal echoes of the line.
        os.write(controller, f"{setup}\necho rea''dy\n".encode())
        until(b"ready\r")
        completed = []
        for line in TYPED:
            os.write(controller, f"{line}\t\n".encode())
            completed.append(until(b"|end").rpartition("given|")[2].split("|")[:-1])
    finally:
        os.close(controller)
        process.kill()
        process.wait()
    assert list(TYPED.values()) == completed


def test_fish(machine: Mapping[str, str], store: Path) -> None:
    """Fish offers the same, and says what each is; one run of the command is all that it waits for."""
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = "".join(f'complete -C "{line}"; ' for line in TYPED)
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {FISH}; {script}"],
        env=machine,
        cwd=store,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == done.stderr
    offered = dict(line.partition("\t")[::2] for line in done.stdout.splitlines())
    assert [words[-1] for words in TYPED.values()] == list(offered)
    assert "Uploads" == offered["uploads"]
    assert "GitLab 17.0.0-pre, 2024-04-26 13.55 UTC" == offered[NEW]


def offered(program: Program, words: str) -> tuple[int, list[str], str]:
    """Return the status of the command, what it offers to bash, and what it says."""
    result = program.having(
        _GITLAB_BACKUP_CLI_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1)
    )()
    return result.status, result.out.split(), result.err


def test_the_backups_of_an_installation(bare: Program, tmp_path: Path, store: Path) -> None:
    """The backup path is that of the installation, found without its databases and the programs in their settings."""
    config = tmp_path / "gitlab" / "config"
    config.mkdir(parents=True)
    (config / "gitlab.yml").write_text(f"production:\n  backup:\n    path: {store}\n")
    (config / "database.yml").write_text(f"production:\n  config_command: touch {tmp_path}/run\n")
    program = bare.having(GITLAB_PATH=str(config.parent))
    assert (0, [OLD, NEW, "latest"], "") == offered(program, "gitlab-backup-cli show ")
    assert (0, [OLD, NEW, "latest", LEGACY], "") == offered(program, "gitlab-backup-cli pin ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [None, "production: [", "production: {backup: {path: 3}}"])
def test_nothing_to_offer(bare: Program, tmp_path: Path, content: str | None) -> None:
    """Without an installation, or with one that cannot be read, nothing is offered and nothing is said."""
    if content is not None:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "gitlab.yml").write_text(content)
    program = bare.having(GITLAB_PATH=str(tmp_path), GITLAB_BACKUP_CLI_CONFIG="/nowhere")
    assert (0, [], "") == offered(program, "gitlab-backup-cli restore all ")
