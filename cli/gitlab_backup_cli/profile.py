"""What `--profile` says: where the time of a run went, and what limits it."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

from attrs import define, field

from gitlab_backup.streams.profile import Side

from .text import duration, size, table

if TYPE_CHECKING:
    from gitlab_backup.streams.profile import Figures, Profile, Stage

    from .documents import Document

_MOSTLY = 0.6
"""The part of a stage's time from which on it is what it mostly does."""


_MEANING = {
    Side.PROCESSOR: "The processor is what limits: more cores, or nothing else on them, make it faster.",
    Side.SOURCE: "What is read from is what limits: its disk, or the network to it.",
    Side.TARGET: "What is written to is what limits: its disk, or the network to it.",
    Side.PROGRAM: "That program is what limits: its own computing, or the server or disk that it waits for.",
    Side.DATABASE: "The database server is what limits: its processor, or its disk.",
}


def _processor(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


@define
class Profiled:
    """A run that is measured, from the moment this is made."""

    profile: Profile
    _own: float = field(factory=lambda: _processor(resource.RUSAGE_SELF))
    _programs: float = field(factory=lambda: _processor(resource.RUSAGE_CHILDREN))

    def document(self) -> dict[str, Document]:
        """Return the figures so far, as docs/cli.md describes them."""
        own, programs = self._processor_seconds()
        return {
            "profile": {
                "stages": [
                    {
                        "stage": stage.name,
                        "bytes": figures.bytes,
                        "seconds": round(figures.seconds, 3),
                        "processor_seconds": round(figures.processor_seconds, 3),
                    }
                    for stage, figures in self.profile.stages()
                ],
                "processor_seconds": round(own, 3),
                "programs_processor_seconds": round(programs, 3),
            }
        }

    def text(self, seconds: float) -> str:
        """Return the figures of a run that took so long, and what they mean."""
        own, programs = self._processor_seconds()
        stages = self.profile.stages()
        rows = [
            (stage.name, size(each.bytes), f"{each.seconds:.1f} s", f"{each.processor_seconds:.1f} s")
            for stage, each in stages
        ]
        shown = table(("stage", "bytes", "time", "computing"), rows, right={1, 2, 3})
        cores = len(os.sched_getaffinity(0))
        return (
            f"{shown}\nThe run took {duration(seconds)} on {cores} cores: {own:.1f} s of computing in this process, "
            f"{programs:.1f} s in the programs that it started.\n{_verdict(stages)}"
        )

    def _processor_seconds(self) -> tuple[float, float]:
        own, programs = _processor(resource.RUSAGE_SELF), _processor(resource.RUSAGE_CHILDREN)
        return own - self._own, programs - self._programs


def _verdict(stages: list[tuple[Stage, Figures]]) -> str:
    if not stages:
        return ""
    stage, figures = stages[0]
    side = Side.PROCESSOR if figures.processor_seconds >= _MOSTLY * figures.seconds else stage.side
    return f"Most of the time went into {stage.name}. {_MEANING[side]}\n"
