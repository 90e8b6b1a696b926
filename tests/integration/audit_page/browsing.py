"""An audit's page in a browser, and what can be seen of it there."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.sync_api import Browser, Dialog, Locator, Page

from tests.audit_pages import rows_of
from worker.contract import keys
from worker.contract.jobs import Job
from worker.storage import Store

LAYER = "pool2"
N_UNITS = 128
PATIENCE_S = 30
FIRST_PAINT_MS = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Audit:
    """An audit with its page, in a folder."""

    store: Store
    job: Job
    folder: Path

    @property
    def url(self) -> str:
        """Of the page."""
        return (self.folder / keys.REPORT).as_uri()

    def units(self) -> list[dict[str, Any]]:
        """The rows of the layer's units."""
        return [row for row in rows_of(self.store, keys.UNITS) if row["layer"] == LAYER]

    def winners(self, unit: int) -> list[dict[str, Any]]:
        """The rows of one of its units, by rank."""
        rows = rows_of(self.store, keys.ATLAS)
        return [row for row in rows if (row["layer"], row["unit"]) == (LAYER, unit)]


@dataclass
class Opened:
    """A tab, what it asked for, and what went wrong in it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def ask(self, dialog: Dialog) -> None:
        """A script opened a dialog."""
        self.faults.append(dialog.message)
        dialog.dismiss()


@contextmanager
def opened(
    browser: Browser, url: str, *, width_px: int = 1280, scheme: Literal["light", "dark"] = "light"
) -> Iterator[Opened]:
    """A page in a tab of its own, drawn to the end. Nothing may go wrong in it, or open a dialog."""
    context = browser.new_context(viewport={"width": width_px, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE_S * 1000)
    page = context.new_page()
    tab = Opened(page)
    page.on("request", lambda request: tab.requests.append(request.url))
    page.on("console", lambda message: tab.faults.append(message.text))
    page.on("pageerror", lambda error: tab.faults.append(str(error)))
    page.on("dialog", tab.ask)
    page.goto(url)
    page.wait_for_selector("#cards[aria-busy=false]", state="attached")
    yield tab
    context.close()
    assert tab.faults == []


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds. The page's policy runs no text, so the browser cannot wait itself."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.02)


def shown_units(page: Page) -> list[int]:
    """The units of the cards, in their order."""
    page.wait_for_selector("#cards[aria-busy=false]", state="attached")
    return [
        int(unit) for unit in page.eval_on_selector_all("#cards a", "all => all.map(a => a.dataset.unit)")
    ]


def seen(element: Locator) -> Image.Image:
    """What the screen shows of an element, once its pictures are loaded."""
    element.scroll_into_view_if_needed()
    loaded = "one => [...one.querySelectorAll('img')].every(img => img.complete && img.naturalWidth)"
    until(lambda: element.evaluate(loaded))
    with Image.open(io.BytesIO(element.screenshot())) as shot:
        return shot.convert("RGB")


def is_near(picture: Image.Image, at: tuple[float, float], wanted: Colour, by: int = 12) -> bool:
    """Whether the picture has about this colour at this share of its width and height."""
    colour = picture.getpixel((int(at[0] * picture.width), int(at[1] * picture.height)))
    assert isinstance(colour, tuple)
    return all(abs(a - b) <= by for a, b in zip(colour, wanted, strict=True))
