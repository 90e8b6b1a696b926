"""One browser and one audit for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.audit_pages import drawn_audit, put_rows, rows_of
from tests.audit_records import make_audit
from tests.integration.audit_page.browsing import LAYER, Audit, Opened, opened
from tests.programs import chromium
from worker.contract import keys
from worker.report import write_audit_report
from worker.storage import open_store


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    found = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """Planted facts and hostile names, against a baseline; two layers' units, of which two drifted."""
    folder = tmp_path_factory.mktemp("audits")
    layers = ("pool1", LAYER)
    make_audit(open_store(folder / "before"), layers=layers, n_images=60, seed=1)
    store, job = drawn_audit(
        folder / "now", layers=layers, n_images=60, seed=2, hostile=True, baseline=str(folder / "before")
    )
    findings = rows_of(store, keys.FINDINGS)
    for unit in (17, 44):
        drift = {"kind": "drift", "severity": "warning", "subject": f"{LAYER}:{unit}", "number": 0.6}
        findings.insert(1, {**drift, "why": "its peaks are distributed differently"})
    put_rows(store, keys.FINDINGS, findings)
    write_audit_report(store, job)
    return Audit(store, job, folder / "now")


@pytest.fixture(scope="package")
def largest_layer(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """An audit of as many units as a layer can have."""
    folder = tmp_path_factory.mktemp("largest")
    store, job = drawn_audit(folder, layers=("pool5",), n_images=60)
    write_audit_report(store, job)
    return Audit(store, job, folder)


@pytest.fixture
def tab(browser: Browser, audit: Audit) -> Iterator[Opened]:
    with opened(browser, audit.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Opened) -> Page:
    return tab.page
