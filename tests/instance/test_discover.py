"""Which installation is found, who is asked first, and what is said where there is none."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from gitlab_backup.errors import ConfigurationError, ExitStatus
from gitlab_backup.instance import Instance
from gitlab_backup.instance.discover import CONTEXT_NAMES, CONTEXT_VARIABLES, search

from .sample import SECRET, Installation, install


@pytest.fixture
def source(tmp_path: Path) -> Installation:
    """An installation from source."""
    return install(tmp_path)


def write_context(file: Path, installation: Installation, extra: str = "") -> Path:
    """Write a context file as Omnibus does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"""\
version: 1
installation_type: "omnibus"
gitlab:
  config_path: {installation.gitlab_yml}
database:
  config_path: {installation.database_yml}
{extra}""",
        encoding="utf-8",
    )
    return file


def found_source(instance: Instance, name: str) -> str:
    """Return who a setting comes from."""
    return next(setting.source for setting in instance.settings if setting.name == name)


def test_source_installation(source: Installation) -> None:
    """GITLAB_PATH names an installation from source, whose files are in config/."""
    instance = Instance.discover(environ={"GITLAB_PATH": str(source.root)})
    assert instance.installation == "source"
    assert instance.root == source.root
    assert instance.gitlab_version == "17.0.0-ee"
    assert instance.rails_env == "production"
    assert instance.gitlab_config == source.gitlab_yml
    assert instance.database_config == source.database_yml
    assert found_source(instance, "gitlab_path") == "environment variable GITLAB_PATH"


@pytest.mark.parametrize("variable", CONTEXT_VARIABLES)
def test_context_variable_wins_over_source(source: Installation, tmp_path: Path, variable: str) -> None:
    """A context file that the environment names comes before GITLAB_PATH."""
    file = write_context(tmp_path / "context.yml", source)
    environ = {variable: str(file), "GITLAB_PATH": "/nowhere"}
    context, root, who = search(context=None, gitlab_path=None, environ=environ)
    assert (file, None, f"environment variable {variable}") == (context, root, who)


def test_first_context_variable_wins(source: Installation, tmp_path: Path) -> None:
    """Of both variables, that of the Ruby tool is asked first."""
    files = [write_context(tmp_path / name, source) for name in ("one.yml", "two.yml")]
    environ = dict(zip(CONTEXT_VARIABLES, map(str, files), strict=True))
    assert files[0] == search(context=None, gitlab_path=None, environ=environ)[0]


def test_context_variable_that_names_nothing(source: Installation, tmp_path: Path) -> None:
    """The context file that Omnibus' wrapper names and never writes is passed over."""
    environ = {CONTEXT_VARIABLES[0]: str(tmp_path / "never-written.yml"), "GITLAB_PATH": str(source.root)}
    assert Instance.discover(environ=environ).installation == "source"


@pytest.mark.parametrize("name", CONTEXT_NAMES)
def test_omnibus_places(source: Installation, tmp_path: Path, name: str) -> None:
    """Each name that Omnibus has had for its context file is found in its etc directory."""
    file = write_context(tmp_path / "etc" / name, source)
    assert (file, None, "default") == search(context=None, gitlab_path=None, environ={}, etc=tmp_path / "etc")


def test_nothing_found(tmp_path: Path) -> None:
    """Without an installation, the error has status 7 and says where it was looked for and what to do."""
    environ = {CONTEXT_VARIABLES[0]: "/no/such.yml"}
    with pytest.raises(ConfigurationError) as caught:
        search(context=None, gitlab_path=None, environ=environ, etc=tmp_path)
    assert caught.value.exit_status == ExitStatus.CONFIGURATION
    for part in ("/no/such.yml", *CONTEXT_VARIABLES, "GITLAB_PATH", *(str(tmp_path / name) for name in CONTEXT_NAMES)):
        assert part in caught.value.message
    assert "--gitlab-path" in str(caught.value.hint)


def test_load_needs_a_name() -> None:
    """`load` looks for nothing: it needs a context file or a directory."""
    with pytest.raises(ConfigurationError, match="neither"):
        Instance.load(environ={"GITLAB_PATH": "/srv"})


def test_omnibus_is_always_production(source: Installation, tmp_path: Path) -> None:
    """An Omnibus installation ignores RAILS_ENV, and its root can be named for one that lies elsewhere."""
    file = write_context(tmp_path / "context.yml", source)
    instance = Instance.discover(context=file, gitlab_path=source.root, environ={"RAILS_ENV": "development"})
    assert instance.installation == "omnibus"
    assert instance.rails_env == "production"
    assert instance.root == source.root
    assert instance.search_path.startswith("/opt/gitlab/embedded/bin:")
    assert found_source(instance, "gitlab_config") == f"{file}: gitlab.config_path"


def test_omnibus_root() -> None:
    """Without a root, that of Omnibus is taken: what is missing there is named."""
    with pytest.raises(ConfigurationError, match=r"/nowhere\.yml does not exist"):
        Instance.load(context=Path("/nowhere.yml"), environ={})


def test_relative_paths_of_a_context_file(source: Installation, tmp_path: Path) -> None:
    """Relative paths in a context file are relative to its directory."""
    file = tmp_path / "context.yml"
    file.write_text(
        "{version: 1, installation_type: omnibus, gitlab: {config_path: gitlab/config/gitlab.yml},"
        " database: {config_path: gitlab/config/database.yml}}",
        encoding="utf-8",
    )
    instance = Instance.load(context=file, gitlab_path=source.root, environ={})
    assert instance.gitlab_config == source.gitlab_yml


def test_context_file_with_every_problem(tmp_path: Path) -> None:
    """All that is wrong with a context file is in one error: version, kind, missing and unknown keys."""
    file = tmp_path / "context.yml"
    file.write_text(
        f"version: 2\ninstallation_type: docker\ngitlab: {{config_path: [1], colour: {SECRET}}}\nregistry: x\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigurationError) as caught:
        Instance.load(context=file, environ={})
    message = caught.value.message
    assert message.startswith(f"{file} cannot be used:")
    for part in (
        "version: must be 1",
        "installation_type: must be omnibus",
        "gitlab.config_path: must be text, not a list",
        "gitlab.colour: is not known here",
        "database.config_path: is missing",
        "registry: is not known here; known are version, installation_type, gitlab, database",
    ):
        assert part in message
    assert SECRET not in message


def test_options_override(source: Installation, tmp_path: Path) -> None:
    """Options come before what the installation says, and are named as the source."""
    other = install(tmp_path / "other")
    instance = Instance.discover(
        gitlab_path=source.root,
        gitlab_config=other.gitlab_yml,
        database_config=other.database_yml,
        backup_path=tmp_path / "elsewhere",
        environ={},
    )
    assert instance.gitlab_config == other.gitlab_yml
    assert instance.database_config == other.database_yml
    assert instance.backup_path == tmp_path / "elsewhere"
    for name in ("gitlab_config", "database_config", "backup.path"):
        assert found_source(instance, name) == "option"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "production"),
        ({"RAILS_ENV": "development"}, "development"),
        ({"RACK_ENV": "development"}, "development"),
        ({"RAILS_ENV": "production", "RACK_ENV": "development"}, "production"),
        ({"RAILS_ENV": "", "RACK_ENV": "development"}, "development"),
    ],
)
def test_rails_environment(source: Installation, environ: dict[str, str], expected: str) -> None:
    """RAILS_ENV, else RACK_ENV, else production says which sections are read."""
    instance = source.load(**environ)
    assert instance.rails_env == expected
    path = {"production": "tmp/my backups", "development": "tmp/development"}[expected]
    assert instance.backup_path == source.root / path


def test_unknown_rails_environment(source: Installation) -> None:
    """An environment that a file does not have is an error that names those it has."""
    with pytest.raises(ConfigurationError, match="no environment staging; it has production, development") as caught:
        source.load(RAILS_ENV="staging")
    assert "Set RAILS_ENV to an environment that the files have." == caught.value.hint


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"16.11.3\n", "16.11.3"),
        (b"  17.0.0-pre  \nnoise/\n", "17.0.0-pre"),
        (b"17.0.0+rfbranch.123", "17.0.0+rfbranch.123"),
    ],
)
def test_version(source: Installation, content: bytes, expected: str) -> None:
    """The version is the first line of VERSION, without blanks around it."""
    (source.root / "VERSION").write_bytes(content)
    assert source.load().gitlab_version == expected


@pytest.mark.parametrize(
    "content", [b"", b"\n17.0.0", b"17/0", b"../17", b"17.0\x00", b"v\xff", b"1" * 65, b"-rf", b"1 2"]
)
def test_odd_version(source: Installation, content: bytes) -> None:
    """A version that cannot be a part of a directory's name is refused."""
    (source.root / "VERSION").write_bytes(content)
    with pytest.raises(ConfigurationError, match="VERSION"):
        source.load()


def test_problems_of_all_files_come_together(source: Installation) -> None:
    """What is wrong with VERSION, gitlab.yml and database.yml is said at once."""
    (source.root / "VERSION").unlink()
    source.gitlab_yml.write_text("production: {}", encoding="utf-8")
    source.database_yml.write_text("production: {}", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        source.load()
    for part in ("VERSION does not exist", "repositories.storages: names no storage", "adapter: must be postgresql"):
        assert part in caught.value.message


def test_secrets_file(source: Installation) -> None:
    """The file with an installation's keys is found where it exists."""
    assert source.load().secrets_file is None
    secrets = source.root / "config" / "secrets.yml"
    secrets.write_text("production: {}", encoding="utf-8")
    assert source.load().secrets_file == secrets


def test_nothing_shows_a_secret(source: Installation) -> None:
    """An instance keeps its secrets out of repr and settings, and survives being pickled."""
    instance = source.load(GITLAB_BACKUP_CI_PGPASSWORD=f"{SECRET}-ci")
    assert instance.databases[0].password == SECRET
    assert SECRET not in repr(instance)
    assert SECRET not in repr(instance.settings)
    assert pickle.loads(pickle.dumps(instance)) == instance  # noqa: S301
