"""Which databases there are, how they are reached, and who overrides whom."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import ConfigurationError
from gitlab_backup.instance import Database

from .sample import SECRET, Installation, install

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path) -> Installation:
    """An installation from source."""
    return install(tmp_path)


def databases(source: Installation, text: str, **environ: str) -> dict[str, Database]:
    """Return the databases of a database.yml."""
    source.database_yml.write_text(text, encoding="utf-8")
    return {database.name: database for database in source.load(**environ).databases}


def problems(source: Installation, text: str, **environ: str) -> str:
    """Return the error that a database.yml gets."""
    with pytest.raises(ConfigurationError) as caught:
        databases(source, text, **environ)
    assert SECRET not in f"{''.join(traceback.format_exception(caught.value))} {caught.value.hint}"
    return caught.value.message


MAIN = "production: {main: {adapter: postgresql, database: gitlabhq_production, host: db, port: 5432, password: p}}"


def test_connections(source: Installation) -> None:
    """Each connection is a database, `main` first; one without tasks of its own shares another's and is left out."""
    main, ci, geo = source.load().databases
    peer = "gitlab-user" if os.geteuid() == 0 else None
    assert main == Database(
        name="main",
        dbname="gitlabhq_production",
        host="/var/opt/gitlab/postgresql",
        port=5433,
        user="gitlab",
        password=SECRET,
        system_user=peer,
    )
    assert ci == Database(
        name="ci",
        dbname="gitlabhq_production_ci",
        host="10.0.0.7,10.0.0.8",
        port=5432,
        user="gitlab",
        password=SECRET,
        ssl={"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/etc/ca.pem", "PGSSLCOMPRESSION": "0"},
        connect_timeout=5,
    )
    assert (geo.name, geo.dbname) == ("geo", "gitlabhq_geo")


def test_main_comes_first(source: Installation) -> None:
    """`main` is the first database wherever it stands in the file."""
    text = "production: {ci: {adapter: postgresql, database: c}, main: {adapter: postgresql, database: m}}"
    assert list(databases(source, text)) == ["main", "ci"]


def test_single_form(source: Installation) -> None:
    """Keys directly under the environment are those of `main`, a mapping among them or not."""
    found = databases(source, "production: {adapter: postgresql, database: gitlab, variables: {statement_timeout: 1s}}")
    assert [(database.name, database.dbname) for database in found.values()] == [("main", "gitlab")]


def test_environment_of_libpq() -> None:
    """A program gets the connection in libpq's variables, the database's name included, and only what is set."""
    database = Database(
        name="ci",
        dbname="a=b",
        host="h",
        port=1,
        user="u",
        password=SECRET,
        ssl={"PGSSLMODE": "require"},
        connect_timeout=7,
    )
    assert database.environment() == {
        "PGDATABASE": "a=b",
        "PGHOST": "h",
        "PGPORT": "1",
        "PGUSER": "u",
        "PGPASSWORD": SECRET,
        "PGSSLMODE": "require",
        "PGAPPNAME": "gitlab-backup",
        "PGCONNECT_TIMEOUT": "7",
    }
    assert Database(name="main", dbname="d").environment() == {
        "PGDATABASE": "d",
        "PGAPPNAME": "gitlab-backup",
        "PGCONNECT_TIMEOUT": "30",
    }
    assert SECRET not in repr(database)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root connects as another user")
@pytest.mark.parametrize(
    ("host", "expected"), [("", "gitlab-user"), ("host: /run/postgresql", "gitlab-user"), ("host: localhost", None)]
)
def test_peer(source: Installation, host: str, expected: str | None) -> None:
    """Root connects as the system user over a Unix socket, and as nobody else over the network."""
    text = f"production: {{adapter: postgresql, database: d, {host}}}"
    assert databases(source, text)["main"].system_user == expected


def test_overrides_in_order(source: Installation) -> None:
    """GITLAB_OVERRIDE_ comes before GITLAB_BACKUP_, in each that of the connection first; then the file."""
    environ: dict[str, str] = {}
    assert databases(source, MAIN, **environ)["main"].host == "db"
    for prefix in ("GITLAB_BACKUP_", "GITLAB_BACKUP_MAIN_", "GITLAB_OVERRIDE_", "GITLAB_OVERRIDE_MAIN_"):
        environ[f"{prefix}PGHOST"] = prefix.lower()
        assert databases(source, MAIN, **environ)["main"].host == prefix.lower()
        environ[f"{prefix.replace('MAIN', 'CI')}PGPORT"] = "7777"
    environ["GITLAB_OVERRIDE_MAIN_PGHOST"] = ""
    assert databases(source, MAIN, **environ)["main"].host == "gitlab_override_"


def test_every_override(source: Installation) -> None:
    """All variables of GitLab's own tools are taken, and named as the source; other PG variables are not."""
    names = ("HOST", "USER", "PASSWORD", "SSLMODE", "SSLKEY", "SSLCERT", "SSLROOTCERT", "SSLCRL", "SSLCOMPRESSION")
    environ = {f"GITLAB_BACKUP_MAIN_PG{name}": name.lower() for name in names}
    environ |= {"GITLAB_BACKUP_MAIN_PGPORT": "6543", "GITLAB_BACKUP_PGDATABASE": "other", "PGHOST": "other"}
    main = databases(source, MAIN, **environ)["main"]
    got = main.environment()
    assert {f"PG{name}": name.lower() for name in names} | {"PGPORT": "6543"} == {
        name: got[name] for name in (*(f"PG{name}" for name in names), "PGPORT")
    }
    assert main.dbname == "gitlabhq_production"
    settings = {setting.name: setting for setting in source.load(**environ).settings}
    assert settings["database.main.password"].value == "(set)"
    assert settings["database.main.password"].source == "environment variable GITLAB_BACKUP_MAIN_PGPASSWORD"


def test_wrong_override(source: Installation) -> None:
    """A wrong port in a variable is blamed on the variable."""
    message = problems(source, MAIN, GITLAB_BACKUP_PGPORT=SECRET)
    assert "environment variable GITLAB_BACKUP_PGPORT" in message


def test_url(source: Installation) -> None:
    """A URL wins over the keys beside it, and may have parts that are escaped."""
    found = databases(
        source,
        "production: {main: {adapter: postgresql, host: old, username: kept,"
        f" url: 'postgresql://:{SECRET}%40@[::1]:5999/git%20lab?sslmode=require'}}}}",
    )["main"]
    assert found == Database(
        name="main",
        dbname="git lab",
        host="::1",
        port=5999,
        user="kept",
        password=f"{SECRET}@",
        ssl={"PGSSLMODE": "require"},
    )


def test_url_with_socket(source: Installation) -> None:
    """A URL alone is enough, its host may be a socket directory in the query."""
    found = databases(source, "production: {main: {url: 'postgres:///gitlab?host=/run/pg'}}")["main"]
    assert (found.dbname, found.host, found.port) == ("gitlab", "/run/pg", None)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://x:{SECRET}@h/d",
        f"postgresql://x:{SECRET}@h:port/d",
        f"postgresql://[{SECRET}/d",
        f"postgresql:///d?{SECRET}",
    ],
)
def test_wrong_url(source: Installation, url: str) -> None:
    """A URL that cannot be used is named by its key alone."""
    text = f"production: {{main: {{adapter: postgresql, database: d, url: '{url}'}}}}"
    assert "production.main.url: " in problems(source, text)


def test_registry(source: Installation) -> None:
    """REGISTRY_DATABASE_ variables add the registry's metadata database, last; GitLab's overrides spare it."""
    environ = {
        "REGISTRY_DATABASE_HOST": "registry.db",
        "REGISTRY_DATABASE_PORT": "5444",
        "REGISTRY_DATABASE_PASSWORD": SECRET,
        "REGISTRY_DATABASE_ROOTCERT": "/ca.pem",
        "REGISTRY_DATABASE_CONNECT_TIMEOUT": "3",
        "GITLAB_BACKUP_PGHOST": "elsewhere",
    }
    assert databases(source, MAIN, **environ)["registry"] == Database(
        name="registry",
        dbname="registry",
        host="registry.db",
        port=5444,
        user="registry",
        password=SECRET,
        ssl={"PGSSLROOTCERT": "/ca.pem"},
        connect_timeout=3,
    )
    assert source.load(**environ).databases[-1].file_name == "registry_database.sql"
    sources = {setting.name: setting.source for setting in source.load(**environ).settings}
    assert sources["database.registry.host"] == "environment variable REGISTRY_DATABASE_HOST"
    assert sources["database.registry.database"] == "default"


def test_wrong_registry(source: Installation) -> None:
    """What is wrong with the registry's variables is blamed on them."""
    assert "REGISTRY_DATABASE_PORT" in problems(source, MAIN, REGISTRY_DATABASE_PORT=SECRET)


def test_registry_twice(source: Installation) -> None:
    """A connection `registry` and the variables cannot both be dumped: they would have one file."""
    text = "production: {main: &m {adapter: postgresql, database: d}, registry: *m}"
    assert "both name a database registry" in problems(source, text, REGISTRY_DATABASE_HOST="h")


def command(source: Installation, output: str, status: int = 0) -> str:
    """Return a config_command that prints something, if it gets its arguments as they are."""
    script = source.root / "config command.py"
    script.write_text(
        f"import sys\nassert sys.argv[1:] == ['a b', '$HOME'], sys.argv\n"
        f"print({output!r})\nprint({SECRET!r}, file=sys.stderr)\n"
        f"sys.exit({status})\n",
        encoding="utf-8",
    )
    return shlex.join([sys.executable, str(script), "a b", "$HOME"])


def with_command(line: str, **main: str) -> str:
    """Return a database.yml with a config_command."""
    import yaml

    connection = {"adapter": "postgresql", "database": "d", "host": "file"} | main
    return yaml.safe_dump({"production": {"config_command": line, "main": connection}})


@pytest.mark.parametrize("top", ["{}", "production: {}"])
def test_config_command(source: Installation, top: str) -> None:
    """The output of config_command is merged over the file, key by key; no shell touches its arguments."""
    inner = f"{{main: {{password: {SECRET}, host: vault}}}}"
    output = inner if top == "{}" else f"production: {inner}"
    main = databases(source, with_command(command(source, output)))["main"]
    assert (main.dbname, main.host, main.password) == ("d", "vault", SECRET)


@pytest.mark.parametrize(
    ("output", "status", "expected"),
    [
        (SECRET, 0, "must hold a mapping, not text"),
        (f"a: '{SECRET}", 0, "is not valid YAML"),
        ("", 0, "is empty"),
        (f"main: {{password: {SECRET}}}", 3, "failed"),
        (f"main: {{password: [{SECRET}]}}", 0, "production.main.password: must be text, not a list"),
    ],
)
def test_config_command_that_fails(source: Installation, output: str, status: int, expected: str) -> None:
    """A config_command that fails, or prints no YAML, is named by its program, without a word of its output."""
    message = problems(source, with_command(command(source, output, status)))
    assert expected in message
    assert "config_command" in message or status == 0


@pytest.mark.parametrize("line", ["/no/such/program --x", "'unclosed", "   "])
def test_config_command_that_cannot_run(source: Installation, line: str) -> None:
    """A config_command that does not exist or is no command line is an error of the configuration."""
    assert "production.config_command" in problems(source, with_command(line))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{adapter: mysql2, database: d}", "production.adapter: must be postgresql"),
        ("{database: d}", "production.adapter: must be postgresql"),
        ("{adapter: postgresql}", "production.database: is missing"),
        ("{adapter: postgresql, database: d, port: 70000}", "production.port: must be between 1 and 65535"),
        (f"{{adapter: postgresql, database: d, port: {SECRET}}}", "production.port: must be a whole number"),
        (
            f"{{adapter: postgresql, database: d, password: [{SECRET}]}}",
            "production.password: must be text, not a list",
        ),
        ("{ci: {adapter: postgresql, database: d}}", "production.main: is missing"),
        ("{main: {adapter: postgresql, database: d}, ../ci: {}}", "production.../ci: is no name for a connection"),
        ("{main: {adapter: postgresql, database: d}, ci: x}", "production.ci: must be a mapping, not text"),
        (
            "{main: {adapter: postgresql, database: d, database_tasks: 5}}",
            "production.main.database_tasks: must be true or",
        ),
        ("{main: {adapter: postgresql, database: d, database_tasks: false}}", "production.main: is missing"),
        ("{}", "production.adapter: must be postgresql"),
        ("", "production.adapter: must be postgresql"),
    ],
)
def test_wrong_value(source: Installation, text: str, expected: str) -> None:
    """Each mistake is named with its key path and without its value."""
    assert expected in problems(source, f"production: {text}")


def test_password_that_is_a_number(source: Installation) -> None:
    """A password of digits without quotes is that text, as for Ruby."""
    text = "production: {main: {adapter: postgresql, database: d, password: 123456}}"
    assert databases(source, text)["main"].password == "123456"  # noqa: S105
