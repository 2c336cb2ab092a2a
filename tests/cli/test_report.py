"""`report`: the page that it writes, and how it ends."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import gitlab_backup_cli
import pytest

from tests.operations.pruned_store import make_backup
from tests.operations.reported_store import HOSTILE, IDS, INCOMPLETE, LEGACY, PARTIAL, STRANGE, TURNED, make_store

if TYPE_CHECKING:
    from .program import Program

STYLE = Path(gitlab_backup_cli.__file__).parent / "page" / "templates" / "style.css"
DEFICIENCIES = {
    "none": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
"""What is left of linear RGB. Machado, Oliveira and Fernandes (2009), table 1, severity 1.0."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup path that is not to be changed."""
    return make_store(tmp_path_factory.mktemp("report") / "backups")


@pytest.fixture
def bare(bare: Program, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The command on a machine without an installation, where matplotlib knows the fonts already."""
    return bare.having(MPLCONFIGDIR=str(tmp_path_factory.getbasetemp() / "matplotlib"))


class Reader(HTMLParser):
    """Reads a page: the texts in it, and its elements with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(page: Reader) -> None:
    """There is nothing that runs, nothing that is fetched, and no text that would look like another one."""
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "src"], (tag, attributes)
        links = [attributes.get("href") or "#" for tag in ("a", "link", "use")]
        assert not [link for link in links if not link.startswith(("#", "data:,"))], (tag, attributes)
    assert not [char for char in page.text if not (char.isprintable() or char == "\n")]


def test_all(bare: Program, store: Path, tmp_path: Path) -> None:
    """The page names everything in the backup path, and by which rule it stays. Only its owner can read it."""
    output = tmp_path / "reports" / "all.html"
    output.parent.mkdir()
    output.write_text("an older one")
    output.chmod(0o644)
    result = bare("report", "--all", "--keep-last", "1", "--keep-monthly", "2", "-o", output, "--backup-path", store)
    assert (0, "") == (result.status, result.out)
    assert result.err.startswith(f"wrote {output}: ")
    assert ([output], 0o600) == (list(output.parent.iterdir()), output.stat().st_mode & 0o777)
    page = Reader(output.read_text("ascii"))
    assert_harmless(page)
    for name in (*IDS, INCOMPLETE, PARTIAL, LEGACY, TURNED.replace("\u202e", r"\u202e"), r"caf\udce9"):
        assert name in page.text
    for kind in ("incomplete", "partial", "unfinished", "foreign", "pinned", "increment"):
        assert kind in page.text
    assert f"socket left out: {HOSTILE}" in page.text
    assert "keep it: keep-last, keep-monthly 2024-04" in page.text
    assert "those not older" not in page.text
    charts = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert (10, {"img"}) == (len(charts), {each["role"] for each in charts})
    assert all("A table of the same figures follows." in (each["aria-label"] or "") for each in charts)
    # What the charts show of the first backup, as text.
    assert 5 <= sum(tag == "summary" for tag, _ in page.elements)
    assert re.search(r"2024-01-28 03:00\s*\S* GiB", page.text)


def test_one(bare: Program, store: Path) -> None:
    """The page on one backup has all that its manifest knows of it, and its digests. It goes to standard output."""
    result = bare("report", "latest", "-o", "-", "--backup-path", store)
    assert (0, "") == (result.status, result.err)
    page = Reader(result.out)
    assert_harmless(page)
    assert 4 == sum(tag == "svg" for tag, _ in page.elements)
    digest = re.search(r"^(\w+)  manifest.json$", (store / IDS[-1] / "SHA256SUMS").read_text(), re.MULTILINE)
    assert digest is not None
    for text in (
        IDS[-1],
        f"{IDS[-2]} (repositories)",
        digest[1],
        "1,204 repositories",
        f"socket left out: {HOSTILE}",
        STRANGE.replace("\x1b", r"\x1b"),
        "databases.main.encoding",
        "registry does not exist",
        "no rules to judge by: no GitLab installation was found",
    ):
        assert text in page.text


def test_rules_of_the_installation(reader: Program, bare: Program, tmp_path: Path) -> None:
    """Without a rule, `backup.keep_time` is the rule, as for `prune`."""
    program = reader.having(MPLCONFIGDIR=bare.environment["MPLCONFIGDIR"])
    result = program("report", "--all", "-o", "-", "--backup-path", tmp_path / "backups")
    assert 0 == result.status, result.err
    assert "those not older than 7 days" in Reader(result.out).text


@pytest.mark.parametrize("count", [0, 1])
def test_few_backups(bare: Program, tmp_path: Path, count: int) -> None:
    """A backup path with nothing in it, or one backup that took no time and has no size, makes a page, too."""
    for backup_id in IDS[:count]:
        make_backup(tmp_path / "backups", backup_id)
    result = bare("report", "--all", "--keep-last", "1", "-o", "-", "--backup-path", tmp_path / "backups")
    assert (0, "") == (result.status, result.err)
    page = Reader(result.out)
    assert count * 10 == sum(tag == "svg" for tag, _ in page.elements)
    assert ("There is no whole backup here." in page.text) == (count == 0)


def test_file_of_options(bare: Program, tmp_path: Path) -> None:
    """Its options can be in the file, as those of other commands."""
    output, options = tmp_path / "report.html", tmp_path / "options.toml"
    options.write_text(
        f'backup_path = "{tmp_path}/backups"\n[report]\noutput = "{output}"\nall = true\nkeep_yearly = 3\n'
    )
    result = bare("--config", options, "report")
    assert (0, "") == (result.status, result.out), result.err
    assert "the newest of each of 3 years" in Reader(output.read_text()).text


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("-o", "-"), 2, "name one backup, or give --all"),
        (("latest", "--all", "-o", "-"), 2, "name one backup, or give --all"),
        (("--all",), 2, "--output"),
        (("--all", "-o", "/dev/null"), 2, "/dev/null is not a regular file"),
        (("--all", "--keep-last", "0", "-o", "-"), 2, "--keep-last"),
        (("1_1970_01_01_17.0.0", "-o", "-"), 5, IDS[-1]),
    ],
)
def test_refused(bare: Program, store: Path, arguments: tuple[str, ...], status: int, message: str) -> None:
    """What cannot be done has its status and a message, and writes nothing."""
    result = bare("report", *arguments, "--backup-path", store)
    assert (status, "") == (result.status, result.out)
    assert message in result.err


def test_without_the_extra(bare: Program, store: Path, tmp_path: Path) -> None:
    """Where matplotlib is not installed, the error says what to install. Nothing is written."""
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError(\"No module named 'matplotlib'\")")
    lacking = bare.having(PYTHONPATH=str(tmp_path))
    result = lacking("report", "--all", "-o", tmp_path / "report.html", "--backup-path", store)
    assert (1, "") == (result.status, result.out)
    assert "No module named 'matplotlib'" in result.err
    assert "pip install 'gitlab-backup-cli[report]'" in result.err
    assert not (tmp_path / "report.html").exists()
    assert 0 == lacking("list", "--backup-path", store).status


def test_others_load_nothing_of_it() -> None:
    """The start of other commands, and the help of this one, does not wait for what draws."""
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gitlab_backup_cli", "report", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in found.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"matplotlib", "numpy", "jinja2", "markupsafe"}


def schemes() -> dict[str, dict[str, str]]:
    """Return the colours of the style sheet by their names, in light and in dark."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)
    )
    return {"light": light, "dark": light | dark}


def linear(colour: str) -> tuple[float, ...]:
    values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return tuple(each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in values)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours. WCAG 2.2, "contrast ratio"."""
    low, high = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in map(linear, (one, other)))
    return (high + 0.05) / (low + 0.05)


def lab(colour: tuple[float, ...]) -> tuple[float, ...]:
    """Return linear RGB in CIELAB, for the white of D65."""
    r, g, b = (min(1.0, max(0.0, each)) for each in colour)
    white = (0.95047, 1.0, 1.08883)
    rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    x, y, z = (
        t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116
        for t in ((m[0] * r + m[1] * g + m[2] * b) / w for m, w in zip(rows, white, strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours(scheme: str) -> None:
    """Text and drawings stand out from what they are on, and no two series look alike to anybody."""
    colours = schemes()[scheme]
    series = [colours[f"series-{number}"] for number in range(7)]
    for name in ("ink", "muted", "accent"):
        assert 4.5 <= min(contrast(colours[name], colours[ground]) for ground in ("page", "surface")), name
    for name in ("good", "warn", "bad"):
        assert 4.5 <= contrast(colours[name], colours[f"{name}-back"]), name
    assert 3 <= min(contrast(each, colours["surface"]) for each in series)
    for deficiency, rows in DEFICIENCIES.items():
        seen = [
            lab(tuple(sum(a * b for a, b in zip(row, linear(each), strict=True)) for row in rows)) for each in series
        ]
        closest = min(sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) ** 0.5 for pair in combinations(seen, 2))
        assert 10 < closest, deficiency
