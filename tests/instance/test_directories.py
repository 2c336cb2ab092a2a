"""Where the data of each component lies, and why it may be left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitlab_backup.components import COMPONENTS, Component, Holder
from gitlab_backup.errors import ConfigurationError
from gitlab_backup.instance import Directory

from .sample import SECRET, Installation, install

BY_ID = {component.id: component for component in COMPONENTS}
DIRECTORIES = [component for component in COMPONENTS if component.holder is Holder.DIRECTORY]


@pytest.fixture
def source(tmp_path: Path) -> Installation:
    """An installation from source."""
    return install(tmp_path)


def directory(source: Installation, component_id: str, text: str = "") -> Directory:
    """Return the directory of a component under lines of `production`."""
    return source.production(text).load().directory(BY_ID[component_id])


def path_of(source: Installation, component_id: str) -> Path:
    """Return the directory of a component of the sample."""
    return source.load().directory(BY_ID[component_id]).path


def test_configured_paths(source: Installation) -> None:
    """Each key of gitlab.yml names its directory, relative to GitLab's root; the rest lies under `shared.path`."""
    expected = {
        "uploads": source.root / "public-data" / "uploads",
        "builds": Path("/srv/gitlab/builds"),
        "artifacts": Path("/srv/gitlab/shared/artifacts"),
        "pages": source.root / "shared" / "pages",
        "lfs": source.root / "data" / "lfs",
        "terraform_state": Path("/srv/gitlab/shared/terraform_state"),
        "registry": Path("/srv/registry"),
        "packages": Path("/srv/gitlab/shared/packages"),
        "ci_secure_files": Path("/srv/gitlab/shared/ci_secure_files"),
        "external_diffs": Path("/srv/gitlab/shared/external-diffs"),
        "ci_catalog_bundles": Path("/srv/gitlab/shared/ci_catalog_bundles"),
        "agent_plan_content": Path("/srv/gitlab/shared/agent_plan_content"),
    }
    assert expected == {component.id: path_of(source, component.id) for component in DIRECTORIES}


def test_fallbacks(source: Installation) -> None:
    """Without any key, everything lies below GitLab's root; `shared.path` is relative to it."""
    assert directory(source, "uploads").path == source.root / "public" / "uploads"
    assert directory(source, "builds").path == source.root / "builds"
    assert directory(source, "lfs").path == source.root / "shared" / "lfs-objects"
    assert directory(source, "lfs", "  shared: {path: elsewhere}\n").path == source.root / "elsewhere" / "lfs-objects"


def test_first_key_wins(source: Installation) -> None:
    """Of several keys that may name a directory, the first that is set does."""
    text = "  artifacts: {{path: {}, storage_path: /two}}\n"
    assert directory(source, "artifacts", text.format("/one")).path == Path("/one")
    assert directory(source, "artifacts", text.format("")).path == Path("/two")


def test_there_or_not(source: Installation, tmp_path: Path) -> None:
    """A directory that exists is backed up, through a symbolic link too; one that does not is left out by name."""
    text = f"  lfs: {{storage_path: {tmp_path / 'lfs'}}}\n"
    assert directory(source, "lfs", text).left_out == f"{tmp_path / 'lfs'}: no such directory"
    (tmp_path / "real").mkdir()
    (tmp_path / "lfs").symlink_to(tmp_path / "real")
    assert directory(source, "lfs", text) == Directory(path=tmp_path / "lfs")


def test_file_in_place_of_a_directory(source: Installation, tmp_path: Path) -> None:
    """A file where the directory must be is a mistake; a file above it means that it is not there."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="file is not a directory"):
        directory(source, "lfs", f"  lfs: {{storage_path: {tmp_path / 'file'}}}\n")
    assert "no such directory" in str(
        directory(source, "lfs", f"  lfs: {{storage_path: {tmp_path / 'file/x'}}}\n").left_out
    )


def test_path_that_cannot_be_looked_at(source: Installation, tmp_path: Path) -> None:
    """A path that the system refuses is a mistake of the configuration."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "loop", "x" * 300):
        with pytest.raises(ConfigurationError, match="cannot be looked at"):
            directory(source, "lfs", f"  lfs: {{storage_path: {path}}}\n")


def test_disabled(source: Installation, tmp_path: Path) -> None:
    """The registry is backed up only where it is enabled; other features leave data behind when they are disabled."""
    text = f"{{enabled: false, path: {tmp_path}, storage_path: {tmp_path}}}"
    assert directory(source, "registry", f"  registry: {text}\n").left_out == "is not enabled"
    assert directory(source, "registry", f"  registry: {{path: {tmp_path}}}\n").left_out == "is not enabled"
    assert directory(source, "registry", f"  registry: {{path: {tmp_path}, enabled: true}}\n").left_out is None
    assert directory(source, "lfs", f"  lfs: {text}\n").left_out is None


def test_own_object_storage(source: Installation) -> None:
    """Data in the object storage of its section is left out with the bucket's name and nothing of the connection."""
    text = f"  lfs: {{object_store: {{enabled: true, remote_directory: my-lfs, connection: {{key: {SECRET}}}}}}}\n"
    assert directory(source, "lfs", text).left_out == "is kept in object storage (bucket my-lfs)"
    settings = source.load().settings
    assert SECRET not in repr(settings)
    nameless = "  lfs: {object_store: {enabled: 'true'}}\n"
    assert directory(source, "lfs", nameless).left_out == "is kept in object storage"


CONSOLIDATED = f"""\
  object_store:
    enabled: true
    connection: {{provider: AWS, aws_secret_access_key: {SECRET}}}
    objects:
      artifacts: {{bucket: my-artifacts}}
      lfs: {{bucket: my-lfs, enabled: false}}
      pages: {{bucket: null}}
      uploads: {{bucket: my-uploads}}
"""


@pytest.mark.parametrize(
    ("component_id", "bucket"),
    [
        ("artifacts", "my-artifacts"),
        ("uploads", "my-uploads"),
        ("lfs", None),
        ("pages", None),
        ("builds", None),
        ("packages", None),
    ],
)
def test_consolidated_object_storage(source: Installation, component_id: str, bucket: str | None) -> None:
    """The consolidated form concerns the types that have a bucket and do not opt out; builds never have one."""
    # Omnibus writes `enabled: false` and an empty connection into each section beside the consolidated form.
    text = CONSOLIDATED + "  artifacts: {object_store: {enabled: false, connection: {}}}\n"
    left_out = str(directory(source, component_id, text).left_out)
    assert left_out == f"is kept in object storage (bucket {bucket})" if bucket else "no such directory" in left_out


@pytest.mark.parametrize(
    "own", ["{enabled: true, remote_directory: old}", "{enabled: false, connection: {provider: AWS}}"]
)
def test_form_of_each_section_switches_the_consolidated_one_off(source: Installation, own: str) -> None:
    """Where one section has object storage of its own, GitLab ignores the consolidated form, and so do we."""
    text = CONSOLIDATED + f"  packages: {{object_store: {own}}}\n"
    assert "no such directory" in str(directory(source, "artifacts", text).left_out)


def test_consolidated_form_without_connection(source: Installation) -> None:
    """The consolidated form needs a connection and to be enabled."""
    for text in (
        CONSOLIDATED.replace("enabled: true", "enabled: false", 1),
        CONSOLIDATED.replace("connection", "other"),
    ):
        assert "no such directory" in str(directory(source, "artifacts", text).left_out)


def test_component_of_somebody_else(source: Installation, tmp_path: Path) -> None:
    """A component that is not in GitLab's table is looked up by the same rules, its mistakes named."""
    component = Component(
        id="mine",
        name="Mine",
        destination="mine.tar",
        holder=Holder.DIRECTORY,
        archiver="files",
        section="mine",
        settings=("mine.here.path",),
        fallback="mine",
    )
    instance = source.production(f"  mine: {{here: {{path: {tmp_path}}}}}\n").load()
    assert instance.directory(component) == Directory(path=tmp_path)
    instance = source.production("  mine: {here: {path: [1]}}\n").load()
    with pytest.raises(ConfigurationError, match=r"production\.mine\.here\.path: must be text"):
        instance.directory(component)
