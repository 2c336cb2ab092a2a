"""The pages of `report` in a real browser."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from gitlab_backup_cli.page import overview, single

from gitlab_backup import BackupStore
from gitlab_backup.operations.report import gather
from gitlab_backup.retention import Rules
from tests.operations.reported_store import HOSTILE, IDS, NEWEST, make_store
from tests.support import browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHARTS = {"all": 5, "one": 2}
LOOK = """(() => {
    const shown = each => each.checkVisibility();
    const box = each => (({width, height}) => [width, height])(each.getBoundingClientRect());
    const all = (where, what) => [...where.querySelectorAll(what)];
    const drawn = all(document, ".chart svg").filter(shown);
    const folded = "details:not([open]) dl, details:not([open]) table";
    return {
        width: document.documentElement.scrollWidth,
        charts: drawn.map(box),
        marks: drawn.map(svg => all(svg, "path, use, text").map(box).filter(b => b[0] + b[1] > 1).length),
        letters: drawn.map(svg => Math.min(...all(svg, "text").map(each => box(each)[1]))),
        fills: drawn.map(svg => new Set(all(svg, "path, use").map(each => getComputedStyle(each).fill)).size),
        scripts: document.querySelectorAll("script, img, [onerror]").length,
        headings: all(document, "h1, h2, h3, h4").map(each => Number(each.tagName[1])),
        ids: all(document, "[id]").map(each => each.id),
        lost: all(document, "[href^='#'], [aria-labelledby]")
            .map(each => each.getAttribute("href")?.slice(1) ?? each.getAttribute("aria-labelledby"))
            .filter(id => !document.getElementById(id)),
        ink: getComputedStyle(document.body).color,
        paper: getComputedStyle(document.body).backgroundColor,
        unfolded: all(document, folded).filter(shown).length,
        text: document.body.innerText,
    };
})()"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report on all backups, and one on the newest."""
    directory = tmp_path_factory.mktemp("report")
    report = gather(
        BackupStore(make_store(directory / "backups")),
        Rules(keep_last=3, keep_daily=7, keep_weekly=4),
        now=datetime.fromtimestamp(NEWEST + 3600, UTC),
    )
    texts = {
        "all": overview.page(report, why_no_rules=None),
        "one": single.page(report, report.backup(IDS[-1]), why_no_rules=None),
    }
    for name, text in texts.items():
        (directory / f"{name}.html").write_text(text)
    return {name: directory / f"{name}.html" for name in texts}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    """A tab of a browser."""
    program = browser.find()
    if program is None:
        pytest.skip("no browser is installed: chromium, for example")
    with browser.opened(program, tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


def look(tab: browser.Page, path: Path, width: int, **how: str) -> Any:
    """Open a page, and return what is seen of it. Nothing was fetched for it, and there is nothing to complain of."""
    tab.look(width, **how)
    tab.open(path)
    seen = tab.evaluate(LOOK)
    assert [path.as_uri()] == [each["request"]["url"] for each in tab.told("Network.requestWillBeSent")]
    for complaint in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
        assert [] == tab.told(complaint)
    assert [] == tab.told("Page.javascriptDialogOpening")
    return seen


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["all", "one"])
def test_page(tab: browser.Page, pages: dict[str, Path], name: str, width: int) -> None:
    """Each chart is there and can be read, in the size that fits; nothing is wider than the screen, nothing runs."""
    seen = look(tab, pages[name], width)
    assert width == seen["width"]
    assert CHARTS[name] == len(seen["charts"])
    for chart_width, chart_height in seen["charts"]:
        assert 0.75 * width < chart_width < width
        assert 130 < chart_height < 800
    assert 8 < min(seen["marks"])
    assert 10 < min(seen["letters"])
    assert 2 <= min(seen["fills"])
    assert 0 == seen["scripts"]
    assert HOSTILE in seen["text"]
    assert [1, *[2] * (len(seen["headings"]) - 1)] == seen["headings"]
    assert len(set(seen["ids"])) == len(seen["ids"])
    assert [] == seen["lost"]


@pytest.mark.parametrize(
    ("scheme", "media", "expected"),
    [
        ("light", "screen", ("rgb(28, 31, 38)", "rgb(244, 245, 247)", False)),
        ("dark", "screen", ("rgb(236, 239, 244)", "rgb(18, 21, 27)", False)),
        ("dark", "print", ("rgb(28, 31, 38)", "rgba(0, 0, 0, 0)", True)),
    ],
)
def test_schemes(
    tab: browser.Page, pages: dict[str, Path], scheme: str, media: str, expected: tuple[str, str, bool]
) -> None:
    """The page is dark where that is wanted, but never on paper; on that, what is folded away is shown, too."""
    seen = look(tab, pages["one"], 1280, scheme=scheme, media=media)
    assert expected == (seen["ink"], seen["paper"], seen["unfolded"] > 0)
