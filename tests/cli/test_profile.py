"""`--profile`: what it says of a real run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .program import Program


def test_a_run_is_measured(program: Program) -> None:
    """A backup, its verification and its restore say what each stage had, and what limits; the document has it too."""
    made = program("backup", "all", "--only", "db,uploads,repositories", "--json", "--profile")
    document = json.loads(made.out)
    stages = {each["stage"]: each for each in document["profile"]["stages"]}
    assert stages.keys() >= {"reading files", "compressing", "waiting for pg_dump", "writing files", "digesting"}
    components = {each["id"]: each for each in document["components"]}
    assert stages["compressing"]["bytes"] > components["db"]["bytes_read"] > 0
    assert 0 <= document["profile"]["processor_seconds"] < 60
    verified = program("verify", "latest", "--profile")
    restored = program("restore", "all", "latest", "--yes", "--quiet", "--profile")
    assert [0, 0, 0] == [made.status, verified.status, restored.status]
    for result, stage in ((made, "compressing"), (verified, "decompressing"), (restored, "loading into PostgreSQL")):
        assert stage in result.err
        assert "Most of the time went into " in result.err
    assert "profile" not in json.loads(program("backup", "all", "--only", "uploads", "--json").out)
