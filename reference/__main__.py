"""Writes the manual pages to where the wheel of the command takes them from."""

from __future__ import annotations

from pathlib import Path

from .man import pages

PAGES = Path(__file__).parent.parent / "cli" / "share" / "man" / "man1"


def main() -> None:
    """Write all pages, and remove those of commands that are no more."""
    found = pages()
    PAGES.mkdir(parents=True, exist_ok=True)
    for page in PAGES.iterdir():
        if page.name not in found:
            page.unlink()
    for name, text in found.items():
        (PAGES / name).write_text(text)


if __name__ == "__main__":
    main()
