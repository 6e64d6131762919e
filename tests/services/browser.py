"""A headless Chromium for tests of pages, as people would see them.

Debian's chromium and chromedriver, each browser with an empty profile of its own.  Nothing but the page's own server is
asked for anything: the background connections that Chromium otherwise makes at every start are off.
"""

import base64
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.services import availability

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it refuses to run as root otherwise
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
_PATIENCE_SECONDS = 60


class Browser:
    """One window.  `text` is what a reader sees of the page; waiting is for what the page says, never for time."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def log_in(self, *, user: str, password: str) -> None:
        """Send these credentials with every request from now on, as after the password prompt."""
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._driver.execute_cdp_cmd("Network.enable", {})
        self._driver.execute_cdp_cmd(
            "Network.setExtraHTTPHeaders", {"headers": {"Authorization": f"Basic {credentials}"}}
        )

    def open(self, url: str) -> None:
        self._driver.get(url)

    @property
    def text(self) -> str:
        return self._driver.find_element(By.TAG_NAME, "body").text

    def rows(self, table: str) -> list[str]:
        """Return the text of each row of the table with that id, without its head."""
        found = self._driver.find_elements(By.CSS_SELECTOR, f"table#{table} tbody tr")
        return [row.text for row in found]

    def wait_for(self, condition: Callable[["Browser"], bool], what: str) -> None:
        """Wait until the page fulfils the condition; fails with the page's text, naming what was waited for."""
        waiting = WebDriverWait(self._driver, _PATIENCE_SECONDS, poll_frequency=0.1)
        waiting.until(lambda _: condition(self), lambda: f"{what}; the page says:\n{self.text}")  # type: ignore[arg-type]

    def reload_until(self, condition: Callable[["Browser"], bool], what: str) -> None:
        """The same for a page that does not change by itself."""

        def reloaded(driver: webdriver.Chrome) -> bool:
            driver.refresh()
            return condition(self)

        WebDriverWait(self._driver, _PATIENCE_SECONDS, poll_frequency=0.5).until(reloaded, what)

    def screenshot(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self._driver.save_screenshot(str(path))
        return path


def missing() -> str:
    """Return why no browser can be started here, or an empty string."""
    lacking = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


@contextmanager
def started(*, width: int = 1280, height: int = 800) -> Iterator[Browser]:
    """Start a browser with a window of that size, and end it with its profile."""
    with TemporaryDirectory(prefix="fleet-chromium-") as profile:
        options = Options()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            driver.set_page_load_timeout(_PATIENCE_SECONDS)
            yield Browser(driver)
        finally:
            driver.quit()


@pytest.fixture
def browser() -> Iterator[Browser]:
    if problem := missing():
        availability.missing(problem)
    with started() as window:
        yield window
