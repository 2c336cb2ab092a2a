"""A server that asks who you are: by the system user on the socket, by a password on loopback."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tests.support import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM_USER: Final = "nobody"
"""The only system user that the socket lets in as the role `gitlab`."""
PASSWORD: Final = "s3cret-p'w\\ =x"  # noqa: S105 - of a server that lives for one test
"""Of the role `gitlab` on loopback."""


@contextmanager
def strict_cluster() -> Iterator[postgres.Cluster]:
    """Run a server with the authentication of Omnibus, and a database `gitlabhq` of the role `gitlab`."""
    with postgres.cluster(
        loopback=True,
        hba=("local all postgres trust", "local all all peer map=gitlab", "host all all 127.0.0.1/32 scram-sha-256"),
        ident=(f"gitlab {SYSTEM_USER} gitlab",),
        settings={"password_encryption": "scram-sha-256"},
    ) as server:
        quoted = PASSWORD.replace("'", "''")
        server.psql(f"SET standard_conforming_strings = on; CREATE ROLE gitlab LOGIN PASSWORD '{quoted}'")
        server.create_database("gitlabhq", owner="gitlab")
        yield server
