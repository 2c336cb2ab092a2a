"""What is read of gitlab.yml: the backup section, the system user, the storages and their places."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitlab_backup.errors import ConfigurationError
from gitlab_backup.instance import Instance, Setting, Storage

from .sample import SECRET, Installation, install


@pytest.fixture
def source(tmp_path: Path) -> Installation:
    """An installation from source."""
    return install(tmp_path)


def setting(instance: Instance, name: str) -> Setting:
    """Return a setting by its name."""
    return next(setting for setting in instance.settings if setting.name == name)


def problems(source: Installation, text: str) -> str:
    """Return the error that lines under `production` get."""
    with pytest.raises(ConfigurationError) as caught:
        source.production(text).load()
    assert SECRET not in str(caught.value)
    return caught.value.message


def test_backup_section(source: Installation) -> None:
    """Paths are relative to GitLab's root, and numbers may be in quotes."""
    instance = source.load()
    assert instance.backup_path == source.root / "tmp" / "my backups"
    assert instance.keep_time == 604_800
    assert instance.gitaly_backup == Path("/opt/gitaly/bin/gitaly-backup")
    assert instance.system_user == "gitlab-user"
    assert setting(instance, "backup.keep_time") == Setting(
        name="backup.keep_time", value="604800", source=f"{source.gitlab_yml}: production.backup.keep_time"
    )


def test_merge_keys(source: Installation) -> None:
    """An environment that is merged from another one has its own values over the other's."""
    instance = source.load(RAILS_ENV="development")
    assert instance.system_user == "dev"
    assert instance.backup_path == source.root / "tmp" / "development"
    assert instance.keep_time is None
    assert [storage.name for storage in instance.storages] == ["default", "second"]


def test_defaults(source: Installation) -> None:
    """What is not set has GitLab's defaults, and says so. A keep_time of 0 is for ever."""
    instance = source.production("  backup: {keep_time: 0, path: ''}\n").load()
    assert instance.backup_path == source.root / "tmp" / "backups"
    assert instance.keep_time is None
    assert instance.gitaly_backup is None
    assert instance.system_user == "git"
    assert setting(instance, "backup.path").source == "default"
    assert setting(instance, "gitlab.user").source == "default"


def test_schemas(source: Installation) -> None:
    """`pg_schema` limits every dump, and the schemas of GitLab's partitions come along."""
    assert source.load().databases[0].schemas == ()
    instance = source.production("  backup: {pg_schema: public}\n").load()
    expected = ("public", "gitlab_partitions_dynamic", "gitlab_partitions_static")
    assert [database.schemas for database in instance.databases] == [expected] * 3


def test_storages(source: Installation) -> None:
    """A storage has its own token, or else that of the gitaly section; where its path is not known it has none."""
    assert source.load().storages == (
        Storage(
            name="default",
            path=Path("/srv/repositories"),
            gitaly_address="unix:/srv/gitaly.socket",
            gitaly_token=SECRET,
        ),
        Storage(name="second", gitaly_address="tcp://gitaly2.internal:8075", gitaly_token=f"{SECRET}-2"),
    )
    shown = setting(source.load(), "repositories.storages.second.gitaly_token")
    assert shown.value == "(set)"
    assert shown.source.endswith("production.repositories.storages.second.gitaly_token")


GITALY = """
[auth]
token = "hidden"
[[storage]]
name = "default"
path = "/data/default"
[[storage]]
name = "other"
path = "/data/other"
"""


def write_gitaly(source: Installation, text: str = GITALY) -> Path:
    """Write Gitaly's configuration where an installation from source has it."""
    file = source.root.parent / "gitaly" / "config.toml"
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    return file


def test_path_from_gitaly(source: Installation) -> None:
    """Gitaly's own configuration has the path that gitlab.yml does not have; one in gitlab.yml comes first."""
    file = write_gitaly(source)
    source.gitlab_yml.write_text(
        "production: {repositories: {storages: {default: {gitaly_address: 'unix:/x'}, other: {path: here}, 3rd: {}}}}",
        encoding="utf-8",
    )
    instance = source.load()
    assert [storage.path for storage in instance.storages] == [Path("/data/default"), source.root / "here", None]
    assert setting(instance, "repositories.storages.default.path").source == f"{file}: storage.0.path"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("unix:/x", Path("/data/default")),
        ("tcp://127.0.0.1:8075", Path("/data/default")),
        ("tls://localhost:9999", Path("/data/default")),
        ("tcp://gitaly.internal:8075", None),
        ("tcp://[broken", None),
    ],
)
def test_gitaly_of_another_machine(source: Installation, address: str, expected: Path | None) -> None:
    """The Gitaly on this machine says nothing of another machine's storage, even of the same name."""
    write_gitaly(source)
    source.gitlab_yml.write_text(
        f"production: {{repositories: {{storages: {{default: {{gitaly_address: '{address}'}}}}}}}}", encoding="utf-8"
    )
    assert source.load().storages[0].path == expected


def test_gitaly_of_omnibus(source: Installation, tmp_path: Path) -> None:
    """On Omnibus, Gitaly's configuration lies in the same data directory as gitlab.yml."""
    data = tmp_path / "data"
    gitlab_yml = data / "gitlab-rails" / "etc" / "gitlab.yml"
    gitlab_yml.parent.mkdir(parents=True)
    gitlab_yml.write_text("production: {repositories: {storages: {default: {}}}}", encoding="utf-8")
    (data / "gitaly").mkdir()
    (data / "gitaly" / "config.toml").write_text(GITALY, encoding="utf-8")
    context = tmp_path / "context.yml"
    context.write_text(
        f"{{version: 1, installation_type: omnibus, gitlab: {{config_path: {gitlab_yml}}},"
        f" database: {{config_path: {source.database_yml}}}}}",
        encoding="utf-8",
    )
    instance = Instance.load(context=context, gitlab_path=source.root, environ={})
    assert instance.storages[0].path == Path("/data/default")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'[[storage]]\nname = "{SECRET}\n', "is not valid TOML at line 2"),
        ('storage = "x"', "storage: must be a list of tables"),
        ("[[storage]]\nname = 'default'", "storage.0.path: is missing"),
        ("[[storage]]\nname = 'default'\npath = 'relative'", "storage.0.path: must be an absolute path"),
        ("storage = [1]", "storage.0: must be a mapping, not a number"),
    ],
)
def test_broken_gitaly_configuration(source: Installation, text: str, expected: str) -> None:
    """A broken config.toml is named, with the place, without its content."""
    file = write_gitaly(source, text)
    source.gitlab_yml.write_text("production: {repositories: {storages: {default: {}}}}", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        source.load()
    assert str(file) in caught.value.message
    assert expected in caught.value.message
    assert SECRET not in caught.value.message


def test_every_problem_at_once(source: Installation) -> None:
    """All wrong values of the file are in one error, each with its key path, none with the value."""
    message = problems(
        source,
        f"""\
  gitlab: {{user: [{SECRET}]}}
  backup: {{path: {{a: {SECRET}}}, keep_time: '{SECRET}', gitaly_backup_path: true, pg_schema: [1.5]}}
  artifacts: [{SECRET}]
  lfs: {{storage_path: 2024-01-01, object_store: {{enabled: '{SECRET}'}}}}
  registry: {{enabled: 3}}
""",
    )
    assert message.splitlines() == [
        f"{source.gitlab_yml} cannot be used:",
        "  - production.gitlab.user: must be text, not a list",
        "  - production.backup.path: must be text, not a mapping",
        "  - production.backup.keep_time: must be a whole number",
        "  - production.backup.gitaly_backup_path: must be text, not true or false; put it in quotes",
        "  - production.backup.pg_schema.0: must be text, not a number; put it in quotes",
        "  - production.artifacts: must be a mapping, not a list",
        "  - production.lfs.storage_path: must be text, not a value of another type; put it in quotes",
        "  - production.lfs.object_store.enabled: must be true or false",
        "  - production.registry.enabled: must be true or false, not a number",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  backup: {keep_time: -1}\n", "production.backup.keep_time: must be between 0 and"),
        ("  backup: {keep_time: 1.5}\n", "production.backup.keep_time: must be a whole number"),
        ("  backup: {keep_time: true}\n", "production.backup.keep_time: must be a whole number, not true or false"),
        ('  backup: {path: "a\\0b"}\n', "production.backup.path: must not have a NUL"),
        ("  shared: x\n", "production.shared: must be a mapping, not text"),
        ("  repositories: {storages: {}}\n", "production.repositories.storages: names no storage"),
        ("  repositories: {storages: {default: x}}\n", "production.repositories.storages.default: must be a mapping"),
        (
            "  repositories: {storages: {on: {path: x}}}\n",
            "production.repositories.storages: has a name that is not text",
        ),
    ],
)
def test_wrong_value(source: Installation, text: str, expected: str) -> None:
    """A value of the wrong type or size is named by its key path."""
    assert expected in problems(source, text)


def test_storage_named_by_a_number(source: Installation) -> None:
    """A storage whose name is a number is a storage, as for Ruby."""
    source.gitlab_yml.write_text("production: {repositories: {storages: {1: {path: /x}}}}", encoding="utf-8")
    assert source.load().storages == (Storage(name="1", path=Path("/x")),)
