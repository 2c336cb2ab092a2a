"""Numbers, times and names as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gitlab_backup.sizes import readable_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

size = readable_size


def duration(seconds: float) -> str:
    """Return a number of seconds: `0.3 s`, `12 s`, `3 min 04 s`, `2 h 05 min`."""
    if seconds < 10:  # noqa: PLR2004 - below this, the tenth of a second tells something
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def time(value: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{value:%Y-%m-%d %H:%M}"


def plural(count: int, singular: str, plural: str | None = None) -> str:
    """Return `1 file`, `2 files`."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def escape(text: str, *, lines: bool = False) -> str:
    """Return `text` without anything that moves a cursor: control characters and the like as escapes.

    Names of files and messages of programs can hold them. With `lines`, line breaks stay.
    """
    kept = "\n" if lines else ""
    return "".join(
        # Half a surrogate pair is a byte of a name that is not UTF-8; `isprintable` is false for it too.
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def wrap(text: str, width: int | None, *, indent: int, first: str | None = None) -> str:
    """Return a line of text, broken between words at `width` columns (None: not at all), and indented.

    `first` stands before the first line, in place of its indentation. Words stay whole: they may be paths to copy.
    """
    import textwrap

    lines = textwrap.wrap(
        text,
        width if width is not None else len(text) + indent + 1,
        initial_indent=" " * indent if first is None else first.rjust(indent),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "".join(f"{line}\n" for line in lines)


def bullets(items: Iterable[str], width: int | None = None, *, numbered: bool = False) -> str:
    """Return a list of items, each with a dash or its number."""
    return "".join(
        wrap(item, width, indent=5, first=f"{number}. ") if numbered else wrap(item, width, indent=4, first="- ")
        for number, item in enumerate(items, start=1)
    )


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = (), width: int | None = None
) -> str:
    """Return rows in columns; those of `right` are set to the right. Nothing is cut off.

    Where that would be wider than `width`, the cells of a row are below one another.
    """
    cells = [tuple(escape(cell) for cell in row) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        return "".join(_below_one_another(cells[0], row) for row in cells[1:])
    text = ""
    for row in cells:
        columns = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        text += "  ".join(columns).rstrip() + "\n"
    return text


def _below_one_another(header: Sequence[str], row: Sequence[str]) -> str:
    wide = max(map(len, header[1:]), default=0)
    cells = zip(header[1:], row[1:], strict=True)
    return f"{header[0]} {row[0]}\n" + "".join(f"  {name:{wide}}  {cell}\n" for name, cell in cells if cell)
