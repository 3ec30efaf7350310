"""A real Chromium, driven by the WebDriver protocol (W3C, 2018)."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

AVAILABLE = bool(shutil.which("chromium") and shutil.which("chromedriver"))
# Of axe-core, as a package of Python's brings it.
AXE = Path(sysconfig.get_path("purelib"), "axe_playwright_python", "axe.min.js")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """A window of that size in CSS pixels, as a phone's if `touch`."""

    def __init__(self, width: int, height: int, *, touch: bool = False) -> None:
        self.touch = touch
        self._profile = tempfile.TemporaryDirectory()
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            started = re.search(r"started successfully on port (\d+)", line)
            if started:
                break
        else:
            raise RuntimeError("chromedriver did not start")
        self._address = f"http://127.0.0.1:{started[1]}"
        options: dict[str, object] = {
            "args": [
                *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-quic", "--disable-background-networking"),
                *("--disable-component-update", "--disable-sync"),
                *("--hide-scrollbars", f"--window-size={width},{height}"),
                f"--user-data-dir={self._profile.name}",
            ],
            "mobileEmulation": {
                "deviceMetrics": {
                    "width": width,
                    "height": height,
                    "pixelRatio": 2,
                    "touch": touch,
                }
            },
        }
        if not touch:
            del options["mobileEmulation"]
        made = self._call(
            "POST",
            "/session",
            {
                "capabilities": {
                    "alwaysMatch": {
                        "browserName": "chrome",
                        "goog:chromeOptions": options,
                        "goog:loggingPrefs": {"browser": "ALL"},
                    }
                }
            },
        )
        self._session = f"/session/{made['sessionId']}"

    def open(self, page: Path | str) -> None:
        """A file, or an address."""
        url = page if isinstance(page, str) else page.as_uri()
        self._call("POST", f"{self._session}/url", {"url": url})

    def dark(self, dark: bool) -> None:
        """Whether the user wants dark pages."""
        scheme = "dark" if dark else "light"
        body = {
            "cmd": "Emulation.setEmulatedMedia",
            "params": {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        }
        self._call("POST", f"{self._session}/goog/cdp/execute", body)

    def run(self, script: str) -> Any:
        """What a script returns."""
        body = {"script": script, "args": []}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def wait(self, script: str) -> None:
        """Until a script returns something true."""
        deadline = time.monotonic() + 60
        while not self.run(script):
            assert time.monotonic() < deadline, f"waited in vain for: {script}"
            time.sleep(0.02)

    def key(self, *keys: str) -> None:
        """Press and release keys one after the other."""
        actions = [
            {"type": kind, "value": key}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        self._act({"type": "key", "id": "keyboard", "actions": actions})

    def drag(
        self, begin: tuple[float, float], end: tuple[float, float], kind: str = "mouse"
    ) -> None:
        """Press at a place of the window, move, release: mouse or touch."""
        self._act(_stroke(kind, kind, begin, end))

    def pinch(self, middle: tuple[float, float], before: float, after: float) -> None:
        """Two fingers beside each other, moved to another distance."""
        x, y = middle
        self._act(
            *(
                _stroke(name, "touch", (x + side * before / 2, y),
                        (x + side * after / 2, y))
                for name, side in (("first", -1), ("second", 1))
            )
        )  # fmt: skip

    def wheel(self, place: tuple[float, float], pixels: int) -> None:
        """Turn the wheel; towards the user, `pixels` are more than 0."""
        x, y = (round(value) for value in place)
        turn = {"type": "scroll", "x": x, "y": y, "deltaX": 0, "deltaY": pixels}
        self._act({"type": "wheel", "id": "wheel", "actions": [turn]})

    def click(self, selector: str) -> None:
        body = {"using": "css selector", "value": selector}
        found = self._call("POST", f"{self._session}/element", body)
        self._call("POST", f"{self._session}/element/{found[_ELEMENT]}/click", {})

    def choose(self, selector: str, *files: Path) -> None:
        """Give files to an input for such."""
        body = {"using": "css selector", "value": selector}
        found = self._call("POST", f"{self._session}/element", body)
        address = f"{self._session}/element/{found[_ELEMENT]}/value"
        self._call("POST", address, {"text": "\n".join(map(str, files))})

    def accessibility(self) -> list[str]:
        """What axe-core finds wrong with the page as it is now."""
        self.run(AXE.read_text("utf-8"))
        self.run(
            "window.found = null; axe.run().then((found) => { window.found = found })"
        )
        self.wait("return window.found")
        found: list[str] = self.run(
            "return found.violations.flatMap((v) => v.nodes.map((n) => "
            "`${v.id}: ${n.target}: ${n.failureSummary}`))"
        )
        return found

    def screenshot(self, path: Path) -> None:
        data = self._call("GET", f"{self._session}/screenshot")
        path.write_bytes(base64.b64decode(data))

    def errors(self) -> list[str]:
        """What the page complained about."""
        log = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait()
            assert self._driver.stdout is not None
            self._driver.stdout.close()
            self._profile.cleanup()

    def _act(self, *sources: dict[str, object]) -> None:
        self._call("POST", f"{self._session}/actions", {"actions": sources})

    def _call(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            self._address + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        # Not through a proxy that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]


def _stroke(
    name: str, kind: str, begin: tuple[float, float], end: tuple[float, float]
) -> dict[str, object]:
    moves = [
        {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 50}
        for x, y in (begin, end)
    ]
    pressed = {"type": "pointerDown", "button": 0}
    return {
        "type": "pointer",
        "id": name,
        "parameters": {"pointerType": kind},
        "actions": [moves[0], pressed, moves[1], {"type": "pointerUp", "button": 0}],
    }
