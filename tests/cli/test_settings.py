"""Options from a file and from the environment: who wins, what is an error, and where each value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gitlab_backup_cli.app import app
from gitlab_backup_cli.settings import _commands, _options, name_variables
from typer.main import get_command

from gitlab_backup import BackupStore
from gitlab_backup.toml import parse

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation

    from .program import Program


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of options that is not there yet."""
    return tmp_path / "options.toml"


def test_precedence(bare: Program, tmp_path: Path, file: Path) -> None:
    """An option wins over a variable, a variable over the file; a command's own section over the top of the file."""

    def path(*arguments: str, program: Program = bare) -> str:
        shown: str = program("--config", file, *arguments, "--json").document["backup_path"]
        return shown.removeprefix(f"{tmp_path}/")

    file.write_text(f'backup_path = "{tmp_path}/top"\n')
    assert "top" == path("status")
    file.write_text(f'backup_path = "{tmp_path}/top"\n[status]\nbackup-path = "{tmp_path}/section"\n')
    assert "section" == path("status")
    variable = bare.having(GITLAB_BACKUP_CLI_BACKUP_PATH=f"{tmp_path}/variable")
    assert "variable" == path("status", program=variable)
    own = variable.having(GITLAB_BACKUP_CLI_STATUS_BACKUP_PATH=f"{tmp_path}/own")
    assert "own" == path("status", program=own)
    assert "before" == path("--backup-path", f"{tmp_path}/before", "status", program=own)
    both = ("--backup-path", f"{tmp_path}/before", "status", "--backup-path", f"{tmp_path}/behind")
    assert "behind" == path(*both, program=own)


def test_a_backup_by_the_file(program: Program, installation: ThrowawayInstallation, file: Path) -> None:
    """Texts, numbers, arrays and switches do what the options do; a variable turns a switch off again."""
    file.write_text(
        '[backup.all]\nonly = ["lfs", "uploads"]\nskip = "uploads"\njobs = 1\nquiet = true\n'
        "prune = true\nkeep-last = 1\n"
    )
    command = program.having(GITLAB_BACKUP_CLI_CONFIG=str(file))
    result = command("backup", "all")
    # It is partial, and so nothing is pruned for it.
    assert (3, "") == (result.status, result.out)
    assert "not everything was pruned" in result.err
    more = command.having(GITLAB_BACKUP_CLI_BACKUP_ALL_PRUNE="0", GITLAB_BACKUP_CLI_BACKUP_ALL_QUIET="false")
    refused = more("backup", "all")
    assert (2, "error: --keep-last says what to prune, and is for --prune") == (
        refused.status,
        refused.err.splitlines()[0],
    )
    assert 1 == len(BackupStore(installation.backup_path).ids())


def test_mistakes(bare: Program, file: Path) -> None:
    """Everything that is wrong is said at once, with its place and the name that is nearest; and nothing is done."""
    file.write_text(
        'backup-pth = "/x"\nversion = true\n[list]\njson = 3\n[backup]\nall = 2\n[check.x]\na = 1\n'
        '[prune]\nkeep-last = "many"\nkeep_dayly = 3\n[verify]\nall = true\njobs = 0\n[backups]\n'
    )
    result = bare("--config", file, "list", "--backup-path", "/nowhere")
    assert (7, "") == (result.status, result.out)
    first, *problems, hint = result.err.splitlines()
    assert f"error: {file} cannot be used:" == first
    assert hint.startswith("hint: ")
    assert [
        "  - backup-pth does not exist; do you mean backup_path?",
        "  - version is a section: [version]",
        "  - list.json must be true or false",
        "  - backup.all is a section: [backup.all]",
        "  - check.x does not exist",
        "  - prune.keep-last must be a whole number, not 'many'",
        "  - prune.keep_dayly does not exist; do you mean keep_daily?",
        "  - verify.jobs must be at least 1, not 0",
        "  - backups does not exist; do you mean backup?",
    ] == problems


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = [", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"#" * (2 << 20), "is too large"),
        (None, "there is no file"),
    ],
)
def test_what_is_no_file_of_options(bare: Program, file: Path, content: bytes | None, message: str) -> None:
    """What cannot be read is an error that names the file, also where it is just not there."""
    if content is not None:
        file.write_bytes(content)
    result = bare("--config", file, "list", "--backup-path", "/nowhere")
    assert (7, "") == (result.status, result.out)
    assert message in result.err
    assert str(file) in result.err


def test_no_file_at_all(bare: Program) -> None:
    """No file is needed, and an empty one is none."""
    assert 0 == bare("--config", "/dev/null", "list", "--backup-path", "/nowhere").status


def test_where_values_come_from(program: Program, tmp_path: Path, file: Path) -> None:
    """`config show` says of each value which file and key, or which variable, it is from, the one that wins."""
    file.write_text(f'backup_path = "{tmp_path}/b"\n[backup.all]\njobs = 2\nskip = ["lfs", "db"]\nprune = true\n')
    variables = {"GITLAB_BACKUP_CLI_BACKUP_ALL_JOBS": "3", "GITLAB_BACKUP_CLI_CHECK_MAX_AGE": "8d"}
    shown = program.having(**variables)("--config", file, "config", "show", "--json").document
    assert [
        {"name": "backup_path", "value": f"{tmp_path}/b", "source": f"{file}: backup_path"},
        {
            "name": "backup.all.jobs",
            "value": "3",
            "source": "environment variable GITLAB_BACKUP_CLI_BACKUP_ALL_JOBS",
        },
        {"name": "backup.all.skip", "value": "lfs,db", "source": f"{file}: backup.all.skip"},
        {"name": "backup.all.prune", "value": "true", "source": f"{file}: backup.all.prune"},
        {"name": "check.max_age", "value": "8d", "source": "environment variable GITLAB_BACKUP_CLI_CHECK_MAX_AGE"},
    ] == shown["options"]
    sources = {each["name"]: each["source"] for each in shown["settings"]}
    assert f"{file}: backup_path" == sources["backup.path"]
    plain = program.having(**variables)("--config", file, "config", "show").out
    assert f"{file}: backup.all.skip" in plain


def test_every_option_has_its_own_variable() -> None:
    """No two options share a variable, and none has that of another program."""
    command = get_command(app)
    name_variables(command)
    found: list[str] = []

    def walk(each: Any) -> None:
        found.extend(option.envvar for option in _options(each).values())
        for below in _commands(each).values():
            walk(below)

    walk(command)
    assert len(found) > 50
    assert len(set(found)) == len(found)
    assert not {"GITLAB_BACKUP_CLI_CONFIG_FILE", "GITLAB_BACKUP_CLI_CONFIG"} & set(found)


def test_the_example(bare: Program, file: Path) -> None:
    """The file of the page is understood."""
    page = (Path(__file__).parents[2] / "docs" / "how-to-configure.md").read_text()
    example = page.partition("```toml\n")[2].partition("```")[0]
    assert parse(example.encode())["backup"]["all"]["keep_daily"] == 7
    file.write_text(example)
    assert 0 == bare("--config", file, "list", "--backup-path", "/nowhere").status


def test_the_help_does_not_name_variables(bare: Program) -> None:
    """They would bury the rest; and the file is not needed to print a help."""
    result = bare("backup", "all", "--help")
    assert (0, "") == (result.status, result.err)
    assert "GITLAB_BACKUP_CLI" not in result.out
