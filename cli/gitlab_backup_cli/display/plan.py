"""What a restore is going to do, as text for the one who has to agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..text import bullets, escape, wrap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gitlab_backup import Instance
    from gitlab_backup.operations.restore import Proposal


def header(proposal: Proposal, instance: Instance) -> str:
    """Return which backup will replace what is where."""
    return (
        f"The backup {escape(proposal.backup_id)} replaces this\n"
        f"in GitLab {escape(instance.gitlab_version)} at {escape(str(instance.root))}:\n"
    )


def plan(proposal: Proposal, width: int | None = None) -> str:
    """Return what will be replaced, by component."""
    text = "\n"
    for component, each in proposal.plans.items():
        lines = each.replaces or ("nothing: there is none yet",)
        text += f"  {escape(component)}\n" + "".join(wrap(escape(line), width, indent=4) for line in lines)
    return text


def notes(proposal: Proposal, warnings: Mapping[str, Sequence[str]], width: int | None = None) -> str:
    """Return what should be known before, warnings of components included."""
    found = all_notes(proposal)
    found += [f"{component}: {each}" for component, messages in warnings.items() for each in messages]
    return f"\nPlease note:\n\n{bullets([escape(note) for note in found], width)}" if found else ""


def all_notes(proposal: Proposal) -> list[str]:
    """Return the notes on the whole, then those on components, which say on which."""
    own = [f"{component}: {note}" for component, each in proposal.plans.items() for note in each.notes]
    return [*proposal.notes, *own]
