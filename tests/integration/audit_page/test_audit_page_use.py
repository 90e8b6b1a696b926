"""What people do with the page of an audit: sort, filter, open, follow, go back; by mouse and by keyboard."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.audit_pages import rows_of
from tests.integration.audit_page.browsing import LAYER, N_UNITS, Audit, opened, shown_units, until
from worker.contract import keys

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("option", "column"),
    [
        ("unit", "unit"),
        ("firing", "firing_rate"),
        ("max", "max"),
        ("specificity", "specificity"),
        ("psi", "psi"),
        ("ks", "ks"),
    ],
)
def test_it_sorts_and_turns_around(page: Page, audit: Audit, option: str, column: str) -> None:
    def expected(sign: int) -> list[int]:
        def order(row: dict[str, Any]) -> tuple[bool, float, int]:
            value = row[column]
            return value is None, 0 if value is None else sign * float(f"{value:.5g}"), row["unit"]

        return [unit for *_, unit in sorted(order(row) for row in audit.units())]

    page.select_option("#sort", option)
    sign = 1 if option == "unit" else -1
    assert shown_units(page) == expected(sign)
    page.click("#reverse")
    assert shown_units(page) == expected(-sign)


@pytest.mark.parametrize(("choice", "units"), [("dead", [7]), ("always-on", [8]), ("drifted", [17, 44])])
def test_it_filters_by_state(page: Page, choice: str, units: list[int]) -> None:
    page.click(f"#states [data-choice={choice}]")
    assert shown_units(page) == units
    expect(page.locator("#count")).to_have_text(f"{len(units)} of {N_UNITS} units of {LAYER}")
    page.click("#states [data-choice=all]")
    assert len(shown_units(page)) == N_UNITS


def test_dead_and_always_on_units_are_listed_as_links(page: Page) -> None:
    for name, unit in (("Dead", 7), ("Always on", 8)):
        page.get_by_text(f"{name}: 1 unit").click()
        link = page.locator("details[open]").get_by_role("link", name=str(unit), exact=True)
        assert link.get_attribute("href") == f"#/unit/{LAYER}/{unit}"


def test_a_number_is_searched_and_enter_opens_it(page: Page) -> None:
    page.fill("#search", "12")
    assert shown_units(page) == [12, *range(120, 128)]
    page.press("#search", "Enter")
    expect(page.locator("#unit-title")).to_contain_text(f"{LAYER} · unit 12")


def test_the_tabs_show_one_layer_at_a_time(page: Page) -> None:
    layers = page.get_by_role("navigation", name="Layers")
    layers.get_by_role("link", name="pool1").click()
    until(lambda: shown_units(page) == list(range(64)))
    expect(layers.locator("[aria-current]")).to_contain_text("pool1")
    page.go_back()
    until(lambda: len(shown_units(page)) == N_UNITS)


def test_the_keyboard_moves_between_cards_opens_and_closes(page: Page) -> None:
    def focused() -> int:
        return int(page.evaluate("document.activeElement.dataset.unit"))

    page.focus("#plot-y")
    page.keyboard.press("Tab")
    assert focused() == 0
    columns = "one => getComputedStyle(one).gridTemplateColumns.split(' ').length"
    n_columns = page.locator("#cards").evaluate(columns)
    last = N_UNITS - 1
    for key, unit in (
        ("ArrowRight", 1),
        ("ArrowDown", 1 + n_columns),
        ("ArrowUp", 1),
        ("ArrowLeft", 0),
        ("ArrowLeft", 0),
        ("End", last),
        ("ArrowRight", last),
        ("Home", 0),
        ("ArrowRight", 1),
    ):
        page.keyboard.press(key)
        assert focused() == unit
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#unit-title")).to_contain_text("unit 1")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#unit-title")).to_contain_text("unit 2")
    page.keyboard.press("Escape")
    expect(page.locator("#unit")).to_be_hidden()
    until(lambda: focused() == 2 and not page.evaluate("location.hash"))


def test_a_unit_leads_to_its_image_that_to_its_units_and_the_way_back_works(page: Page, audit: Audit) -> None:
    page.click("#cards a[data-unit='5']")
    image = audit.winners(5)[0]
    page.locator(".winners li a").first.click()
    expect(page.locator("#unit")).to_be_hidden()
    assert page.url.endswith(f"#/image/{image['image_key']}")
    expect(page.locator("#image-rows tr").first).to_have_class("pinned")
    expect(page.locator(".about .path")).to_contain_text(image["image"])
    n_won = sum(row["image_key"] == image["image_key"] for row in rows_of(audit.store, keys.ATLAS))
    expect(page.locator(".about")).to_contain_text(f"It is a top image of {n_won} units")
    wins = page.locator(".about .wins a")
    expect(wins).to_have_count(min(n_won, 24))
    name = wins.last.inner_text().split()[0]
    wins.last.click()
    expect(page.locator("#unit-title")).to_contain_text(name.replace(":", " · unit "))
    for shown in ("#images", "#unit", "#atlas"):
        page.go_back()
        expect(page.locator(shown)).to_be_visible()
        expect(page.locator("#unit")).to_be_visible(visible=shown == "#unit")
    page.go_forward()
    expect(page.locator("#unit-title")).to_contain_text(f"{LAYER} · unit 5")


def test_neighbours_are_those_of_the_sorted_cards_and_back_leads_out(page: Page) -> None:
    page.select_option("#sort", "max")
    first, second = shown_units(page)[:2]
    page.click(f"#cards a[data-unit='{first}']")
    expect(page.get_by_role("button", name="Previous unit")).to_be_disabled()
    page.get_by_role("button", name="Next unit").click()
    expect(page.locator("#unit-title")).to_contain_text(f"unit {second}")
    page.go_back()
    expect(page.locator("#unit")).to_be_hidden()


def test_a_link_to_a_unit_opens_it_and_closing_shows_its_layer(browser: Browser, audit: Audit) -> None:
    with opened(browser, f"{audit.url}#/unit/pool1/9") as tab:
        expect(tab.page.locator("#unit-title")).to_contain_text("pool1 · unit 9")
        tab.page.get_by_role("button", name="Close").click()
        until(lambda: tab.page.evaluate("location.hash") == "#/atlas/pool1")
        assert shown_units(tab.page) == list(range(64))


@pytest.mark.parametrize(
    "fragment", [f"#/unit/{LAYER}/9999", "#/unit/__proto__/1", "#/atlas/constructor", "#/nothing", "#%"]
)
def test_a_fragment_that_names_nothing_shows_the_atlas(browser: Browser, audit: Audit, fragment: str) -> None:
    with opened(browser, audit.url + fragment) as tab:
        assert len(shown_units(tab.page)) == N_UNITS
        expect(tab.page.locator("#unit")).to_be_hidden()


def test_a_dot_of_the_plot_opens_its_unit(page: Page) -> None:
    dot = page.locator("#plot .dots circle").nth(7)
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    assert box is not None
    at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*at)
    readout = page.locator("#readout").inner_text()
    assert readout == "unit 7: fires on 0 %, maximum 0"
    page.mouse.click(*at)
    expect(page.locator("#unit-title")).to_contain_text(f"{LAYER} · unit 7")
    expect(page.locator("#unit")).to_contain_text("No image makes this unit fire")


def test_what_to_look_at_first_leads_to_its_subject(page: Page) -> None:
    first = page.locator(".first li")
    expect(first.first.locator(".severity")).to_have_text("error")
    first.get_by_role("link", name=f"{LAYER}:44").click()
    expect(page.locator("#unit-title")).to_contain_text(f"{LAYER} · unit 44")
    expect(page.locator("#unit .notes")).to_contain_text("drift its peaks are distributed differently")


def test_findings_are_filtered_by_severity_and_kind(page: Page, audit: Audit) -> None:
    findings = rows_of(audit.store, keys.FINDINGS)
    page.get_by_role("link", name="Findings", exact=True).click()
    rows = page.locator("#finding-rows tr")
    expect(rows).to_have_count(len(findings))
    page.click("#severities [data-choice=warning]")
    expect(rows).to_have_count(sum(finding["severity"] == "warning" for finding in findings))
    page.select_option("#kind", "drift")
    expect(rows.locator("th")).to_have_text([f"{LAYER}:44", f"{LAYER}:17"])


@pytest.mark.parametrize(("choice", "numbers"), [("failed", [5]), ("outliers", [4]), ("alike", [0, 1, 2, 3])])
def test_images_are_filtered(page: Page, audit: Audit, choice: str, numbers: list[int]) -> None:
    names = [row["image"] for row in rows_of(audit.store, keys.IMAGES)]
    page.get_by_role("link", name="Images", exact=True).click()
    page.click(f"#image-kinds [data-choice={choice}]")
    links = page.eval_on_selector_all("#image-rows th a", "all => all.map(one => one.hash)")
    assert sorted(links) == sorted(f"#/image/{keys.image_key(names[number])}" for number in numbers)


def test_images_that_win_most_often_come_first(page: Page, audit: Audit) -> None:
    page.get_by_role("link", name="Images", exact=True).click()
    page.click("#image-kinds [data-choice=winners]")
    texts = page.locator("#image-rows td:nth-child(4)").all_inner_texts()
    n_top = [row["n_top"] for row in rows_of(audit.store, keys.IMAGES)]
    assert [int(re.sub(r"\D", "", text)) for text in texts] == sorted(filter(None, n_top), reverse=True)
