"""A GitLab-shaped installation for these tests: only what is read of one, in the shapes in which people have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from gitlab_backup.instance import Instance

if TYPE_CHECKING:
    from pathlib import Path

# Planted wherever a configuration may hold a secret.
SECRET = "s3kr1t-n3v3r-sh0wn"  # noqa: S105

GITLAB_YML = f"""\
# This file is written by a template. <%= not evaluated in a comment %>
production: &base
  gitlab:
    host: gitlab.example.com
    port: 443
    https: true
    user: gitlab-user
    email_from: gitlab@example.com
    incoming_email_token: "{SECRET}"
    default_projects_features: &features
      issues: true
      wiki: true
  omniauth:
    providers:
      - {{ name: saml, args: {{ label: Company, idp_cert_fingerprint: '{SECRET}' }} }}
  ldap:
    enabled: false
    servers:
      main:
        password: '{SECRET}'
  shared:
    path: /srv/gitlab/shared
  artifacts: &local
    enabled: true
    object_store:
      enabled: false
      remote_directory: artifacts
      connection: {{}}
  lfs:
    <<: *local
    storage_path: data/lfs
  uploads:
    storage_path: public-data
  pages:
    enabled: false
    path: shared/pages
  registry:
    enabled: false
    path: /srv/registry
  gitlab_ci:
    builds_path: /srv/gitlab/builds
  gitaly:
    client_path: /home/git/gitaly/_build/bin
    token: {SECRET}
  repositories:
    storages: {{"default": {{"gitaly_address": "unix:/srv/gitaly.socket", "path": "/srv/repositories"}},
               "second": {{"gitaly_address": "tcp://gitaly2.internal:8075", "gitaly_token": "{SECRET}-2"}}}}
  backup:
    path: "tmp/my backups"
    keep_time: "604800"
    archive_permissions: 0640
    gitaly_backup_path: /opt/gitaly/bin/gitaly-backup
    upload:
      connection: {{ provider: AWS, aws_access_key_id: '{SECRET}', aws_secret_access_key: '{SECRET}' }}
      encryption_key: '{SECRET}'
development:
  <<: *base
  backup:
    path: tmp/development
  gitlab:
    <<: {{ user: dev }}
    default_projects_features:
      <<: *features
"""

DATABASE_YML = f"""\
production: &production
  main: &main
    adapter: postgresql
    encoding: unicode
    database: gitlabhq_production
    username: gitlab
    password: "{SECRET}"
    host: /var/opt/gitlab/postgresql
    port: 5433
    prepared_statements: false
    variables:
      statement_timeout: 15s
  ci:
    <<: *main
    database: gitlabhq_production_ci
    host: 10.0.0.7,10.0.0.8
    port: "5432"
    sslmode: verify-full
    sslrootcert: /etc/ca.pem
    sslcompression: 0
    connect_timeout: 5
  sec:
    <<: *main
    database_tasks: false
  geo:
    <<: *main
    database: gitlabhq_geo
development:
  main:
    <<: *main
    database: gitlabhq_development
"""


@frozen
class Installation:
    """The files of an installation from source under a temporary directory."""

    root: Path

    @property
    def gitlab_yml(self) -> Path:
        """Its gitlab.yml."""
        return self.root / "config" / "gitlab.yml"

    @property
    def database_yml(self) -> Path:
        """Its database.yml."""
        return self.root / "config" / "database.yml"

    def load(self, **environ: str) -> Instance:
        """Read it, with nothing in the environment but what is given."""
        return Instance.load(gitlab_path=self.root, environ=environ)

    def production(self, text: str) -> Installation:
        """Write a gitlab.yml of a storage and the given lines (two spaces deep) under `production`."""
        storages = "production:\n  repositories: {storages: {default: {path: /srv/repositories}}}\n"
        self.gitlab_yml.write_text(storages + text, encoding="utf-8")
        return self


def install(directory: Path, gitlab_yml: str = GITLAB_YML, database_yml: str = DATABASE_YML) -> Installation:
    """Write an installation below a directory."""
    installation = Installation(directory / "gitlab")
    installation.gitlab_yml.parent.mkdir(parents=True, exist_ok=True)
    (installation.root / "VERSION").write_text("17.0.0-ee\n", encoding="utf-8")
    installation.gitlab_yml.write_text(gitlab_yml, encoding="utf-8")
    installation.database_yml.write_text(database_yml, encoding="utf-8")
    return installation
