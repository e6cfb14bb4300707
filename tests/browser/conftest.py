"""A headless Chromium, and the pages that it opens; skipped with a reason if there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ckptparse

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


class Page:
    """One page in the browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def rows(self) -> list[list[str]]:
        """The cells of every row of the table that is in the document."""
        found: list[list[str]] = self.run(
            "return [...document.querySelectorAll('#table tbody tr[aria-rowindex]')]"
            ".map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return found

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Every address that was asked for since the last look."""
        asked = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(message["params"]["request"]["url"])
        return asked


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    helper = shutil.which("chromedriver")
    if binary is None or helper is None:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--hide-scrollbars", "--force-color-profile=srgb"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    from selenium.webdriver.chrome.service import Service

    found = webdriver.Chrome(options=options, service=Service(helper))
    found.set_page_load_timeout(120)
    yield found
    found.quit()


@pytest.fixture
def show(driver: Any, tmp_path: Path) -> Callable[..., Page]:
    """Makes the page of something, opens it, and gives it; what is a page already is opened."""

    def opened(
        source: Any, *, width: int = 1280, height: int = 900, scheme: str = "light", **options: Any
    ) -> Page:
        pytest.importorskip("jinja2")
        out = tmp_path / "page.html"
        if isinstance(source, Path) and source.suffix == ".html":
            out = source
        else:
            ckptparse.report_page(source, out, overwrite=True, **options)
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme},
                          {"name": "prefers-reduced-motion", "value": "reduce"}]},
        )  # fmt: skip
        page = Page(driver)
        driver.get("about:blank")
        page.complaints()
        page.requests()
        driver.get(out.as_uri())
        assert page.run("return document.documentElement.dataset.ready") == "yes"
        return page

    return opened


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return HERE.parents[1] / "fixtures"
