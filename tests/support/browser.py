"""A page in Debian's Chromium, without a window."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 120.0
"""Seconds to wait for a page, on a machine that is busy with other things."""
ALL_TRACES = """
return [...document.querySelectorAll(".plot")].filter((plot) => plot.data).map((plot) =>
  plot.data.filter((trace) => trace.visible !== false).map((trace) => trace.meta));
"""


class Page:
    """A page that is open in the browser."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = driver
        driver.get_log("browser")  # forget what came before
        driver.get_log("performance")
        driver.get(path.as_uri())

    def js(self, script: str, *words: Any) -> Any:
        return self.driver.execute_script(script, *words)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def wait(self, script: str, *words: Any) -> None:
        """Wait until a script returns something true."""
        end = time.monotonic() + PATIENCE
        while not self.js(script, *words):
            assert time.monotonic() < end, f"in vain for {PATIENCE} s: {script} {words}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until every figure that was drawn shows what was chosen."""
        self.wait("return baqReport.waiting === 0")

    def draw_all(self) -> int:
        """Scroll to every figure until it is drawn; return how many there are."""
        count = len(self.all(".figure"))
        for i in range(count):
            figure = "document.querySelectorAll('.figure')[arguments[0]]"
            self.js(f"{figure}.scrollIntoView({{block: 'center'}})", i)
            self.wait(f"return {figure}.dataset.drawn || {figure}.dataset.failed", i)
        self.settle()
        return count

    def click(self, selector: str, index: int = 0) -> None:
        self.all(selector)[index].click()
        self.settle()

    def traces(self) -> list[list[dict[str, Any]]]:
        """Return what every figure that is drawn shows: `meta` of each visible trace."""
        return self.js(ALL_TRACES)

    def methods_shown(self) -> list[set[int]]:
        return [{m["method"] for m in of if "method" in m} for of in self.traces()]

    def said(self) -> list[str]:
        """Return what the browser wrote to its console since the last call."""
        return [f"{e['level']}: {e['message']}" for e in self.driver.get_log("browser")]

    def requested(self) -> set[str]:
        """Return the schemes of all addresses that were asked for, by page, script or style."""
        messages = [json.loads(e["message"]) for e in self.driver.get_log("performance")]
        sent = [m["message"] for m in messages if "message" in m]
        return {
            m["params"]["request"]["url"].split(":")[0]
            for m in sent
            if m["method"] == "Network.requestWillBeSent"
        }

    def resize(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, scheme: str) -> None:
        wish = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)

    def background(self) -> str:
        return str(self.js("return getComputedStyle(document.body).backgroundColor"))


def start() -> Any:
    """Start the browser; where it is missing, skip the test, or fail if CI requires it."""
    places = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, place in places.items() if place is None]
    if importlib.util.find_spec("selenium") is None:
        missing.append("selenium")
    if missing:
        reason = f"the page is tested in Debian's Chromium; missing: {', '.join(missing)}"
        if os.environ.get("BAQ_REQUIRE_CHROMIUM"):
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(places["chromium"])
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(str(places["chromedriver"])))
