"""A browser that is driven by the Chrome DevTools Protocol, over two pipes: no driver, no port, nothing to install.

See <https://chromedevtools.github.io/devtools-protocol/>; messages are JSON, each ended by a NUL.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(each), fcntl.F_DUPFD_CLOEXEC, 10) for each in sys.argv[1:3]]
for number, end in enumerate(ends, start=3):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes the browser, whose pipes must be the descriptors 3 and 4."""
_PATIENCE = 60
"""Seconds that an answer may take."""


def find() -> str | None:
    """Return the program of a browser; None where there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@define
class Page:
    """A tab: what it is told to do, and what it has told since."""

    _write: int
    _read: int
    _session: str = ""
    _number: int = 0
    _rest: bytes = b""
    events: list[dict[str, Any]] = field(factory=list)

    def call(self, method: str, **parameters: object) -> Any:
        """Have something done, and return what comes of it."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def attach(self) -> None:
        """Open a tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Tell the browser to end, if it has not yet."""
        with suppress(OSError):
            os.write(self._write, b'{"id": 0, "method": "Browser.close"}\0')

    def open(self, path: Path) -> None:
        """Load a file, and wait until all of it is there."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not self.told("Page.loadEventFired"):
            self.events.append(self._next())

    def look(self, width: int, *, scheme: str = "light", media: str = "screen") -> None:
        """Show it that wide, in pixels, in `light` or `dark`, on the `screen` or in `print`."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in JavaScript. (What the page itself may run is another matter.)"""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def told(self, method: str) -> list[dict[str, Any]]:
        """Return the events of one kind since the last page was opened."""
        return [each["params"] for each in self.events if each.get("method") == method]

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


@contextmanager
def opened(program: str, profile: Path) -> Iterator[Page]:
    """Start a browser with a new profile; yield a tab of it, and end it. What it says of itself is in `profile`."""
    profile.mkdir()
    commands, answers = os.pipe(), os.pipe()
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _START,
                str(commands[0]),
                str(answers[1]),
                program,
                *_FLAGS,
                f"--user-data-dir={profile}",
            ],
            pass_fds=(commands[0], answers[1]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": str(profile), "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    os.close(commands[0])
    os.close(answers[1])
    page = Page(commands[1], answers[0])
    try:
        page.attach()
        yield page
    finally:
        page.close()
        os.close(commands[1])
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        os.close(answers[0])
