"""The page of an audit as text: what it embeds, what it leaves out, and that names stay text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.audit_pages import drawn_audit, put_rows, rows_of
from tests.audit_records import HOSTILE_NAMES
from tests.report_job import Node, data_of, finished_job, read_html
from worker.contract import keys
from worker.contract.errors import MessageError, ObjectNotFound, UsageError
from worker.contract.jobs import Job
from worker.report import audit_model, write_audit_report
from worker.report.audit_model import audit_page_of, plain
from worker.report.audit_page import script_json
from worker.report.sprites import CELL_PX, embedded_sprites
from worker.storage import Store, open_store


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Job]:
    """An audit of two small layers with hostile names, and its page."""
    folder = tmp_path_factory.mktemp("audit")
    store, job = drawn_audit(folder, layers=("pool1", "pool2"), n_images=40, hostile=True)
    write_audit_report(store, job)
    return store, job


@pytest.fixture
def audit(tmp_path: Path) -> tuple[Store, Job]:
    """An audit of one small layer that a test may change; no page yet."""
    return drawn_audit(tmp_path, layers=("pool1",), n_images=12)


def page_of(store: Store, key: str = keys.REPORT) -> Node:
    return read_html(store.read(key).decode())


def embedded(page: Node, element: str = "data") -> Any:
    """What a script element of data holds."""
    return json.loads(page.one("script", id=element).text)


def finding(kind: str, severity: str, subject: str, number: float | None = None) -> dict[str, Any]:
    return {"kind": kind, "severity": severity, "subject": subject, "number": number, "why": f"{kind} why"}


def test_data_in_a_script_holds_nothing_that_html_reads_otherwise() -> None:
    value = {"<script>": "</script><!-- & ]]> \u2028 \u2029 \x00 'quoted' \"twice\""}
    text = script_json(value)
    assert not set("<>&\u2028\u2029\x00") & set(text)
    assert json.loads(text) == value


def test_what_json_cannot_hold_is_null() -> None:
    assert [plain(value) for value in (math.nan, math.inf, -math.inf, None)] == [None] * 4
    assert plain(0.123456789) == 0.12346


def test_names_are_never_markup(finished: tuple[Store, Job]) -> None:
    store, _ = finished
    for key in (keys.REPORT, keys.SINGLE_PAGE):
        text = store.read(key).decode()
        assert not [name for name in HOSTILE_NAMES if name in text and re.search("[<>]", name)]
        page = read_html(text)
        assert set(embedded(page)["images"]["name"]) >= set(HOSTILE_NAMES)
        kinds = [node.attributes.get("type") for node in page.all("script")]
        assert set(kinds[:-1]) == {"application/json"}
        assert kinds[-1] is None


def test_the_policy_allows_this_script_alone(finished: tuple[Store, Job]) -> None:
    store, _ = finished
    text = store.read(keys.REPORT).decode()
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    policies = [
        node.attributes["content"]
        for node in read_html(text).all("meta", http_equiv="Content-Security-Policy")
    ]
    assert policies == [
        "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ]


def test_it_leads_outside_only_to_the_two_papers(finished: tuple[Store, Job]) -> None:
    store, _ = finished
    text = re.sub(r"data:image/[^\"\\]+", "", store.read(keys.SINGLE_PAGE).decode())
    outside = set(re.findall(r"https?://[\w.]+/[^\s\"<]*", text))
    assert outside == {
        "https://arxiv.org/abs/1805.07039",
        "https://arxiv.org/abs/1311.2901",
        "http://www.w3.org/2000/svg",
    }


def test_the_head_says_what_was_audited(finished: tuple[Store, Job]) -> None:
    store, job = finished
    page = page_of(store)
    assert page.one("h1").text == job.id
    facts = page.one("header").facts()
    assert facts["Network"] == "VGG-16 imagenet 555555555555…"
    assert facts["Data set"] == "40 images 1 failed"
    assert facts["Looked at"] == "192 units pool1, pool2"
    assert facts["Date"] == "2026-03-04 05:06 UTC"
    assert facts["Compared with"].startswith("nothing")


def test_numbers_are_those_of_the_tables(finished: tuple[Store, Job]) -> None:
    store, _ = finished
    data = embedded(page_of(store))
    units = rows_of(store, keys.UNITS)
    assert [layer["name"] for layer in data["layers"]] == ["pool1", "pool2"]
    for layer in data["layers"]:
        rows = [row for row in units if row["layer"] == layer["name"]]
        assert layer["unit"] == [row["unit"] for row in rows]
        assert layer["state"] == [row["state"] for row in rows]
        for short, column in (("firing", "firing_rate"), ("max", "max"), ("specificity", "specificity")):
            assert layer[short] == [
                row[column] if row[column] is None else pytest.approx(row[column], rel=1e-4) for row in rows
            ]
        assert layer["psi"] == [None] * len(rows)


def test_histogram_bins_are_the_tables_quarter_octaves(finished: tuple[Store, Job]) -> None:
    def edge(code: int | None) -> float:
        return 0.0 if code is None else 2.0 ** (code // 4) * (1 + code % 4 / 4)

    store, _ = finished
    layer = embedded(page_of(store))["layers"][0]
    rows = [row for row in rows_of(store, keys.UNITS) if row["layer"] == "pool1"]
    for bins, row in zip(layer["histogram"], rows, strict=True):
        assert [(edge(code), count) for code, count in bins] == [
            *zip(row["histogram_edges"], row["histogram_counts"], strict=True)
        ]


def test_winners_are_in_order_and_name_their_images(finished: tuple[Store, Job]) -> None:
    store, _ = finished
    data = embedded(page_of(store))
    winners = data["layers"][1]["winners"][5]
    rows = [row for row in rows_of(store, keys.ATLAS) if (row["layer"], row["unit"]) == ("pool2", 5)]
    rows.sort(key=lambda row: row["rank"])
    assert [(rank, data["images"]["key"][image]) for rank, image, *_ in winners] == [
        (row["rank"], row["image_key"]) for row in rows
    ]
    assert data["layers"][1]["winners"][7] == []  # it is dead


def test_a_winner_without_a_picture_says_why(audit: tuple[Store, Job]) -> None:
    store, job = audit
    rows = rows_of(store, keys.ATLAS)
    gone = {**rows[0], "status": "failed", "error": "ImageNotFound", "message": "it is not there"}
    gone |= dict.fromkeys(("left", "top", "right", "bottom", "scale", "other_unit_similarity"))
    put_rows(store, keys.ATLAS, [gone, *rows[1:]])
    data = audit_page_of(store, job).data
    assert data["layers"][0]["winners"][rows[0]["unit"]][0][-1] == "ImageNotFound: it is not there"


def test_findings_link_to_what_they_are_about(audit: tuple[Store, Job]) -> None:
    store, job = audit
    image = rows_of(store, keys.IMAGES)[0]
    put_rows(
        store,
        keys.FINDINGS,
        [
            finding("outlier", "warning", image["image"]),
            finding("drift", "warning", "pool1:17", 0.5),
            finding("nonfinite", "error", "pool1:3"),
            finding("drift", "warning", "pool1", 40),
            finding("image-added", "info", "audit", 3),
            finding("drift", "warning", "pool1:999"),
        ],
    )
    page = audit_page_of(store, job)
    assert [each.link for each in page.findings] == [
        f"#/image/{image['image_key']}",
        "#/unit/pool1/17",
        "#/unit/pool1/3",
        "#/atlas/pool1",
        None,
        None,
    ]


def test_first_come_the_gravest_that_do_more_than_inform_and_few_of_a_kind(audit: tuple[Store, Job]) -> None:
    store, job = audit
    drifts = [finding("drift", "warning", f"pool1:{unit}") for unit in range(9, 30)]
    others = [
        finding("outlier", "warning", "photos/0/image-00001.jpg"),
        finding("dead-unit", "info", "pool1:1"),
    ]
    put_rows(store, keys.FINDINGS, [finding("nonfinite", "error", "pool1:3"), *drifts, *others])
    first = audit_page_of(store, job).first
    assert [each.kind for each in first] == ["nonfinite", "drift", "drift", "drift", "outlier"]


def test_an_audit_without_findings_says_so(audit: tuple[Store, Job]) -> None:
    store, job = audit
    put_rows(store, keys.FINDINGS, [])
    write_audit_report(store, job)
    assert "the audit has no error and no warning" in page_of(store).one("section", class_="first").text


def test_of_many_images_those_are_listed_that_people_look_for(
    audit: tuple[Store, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, job = audit
    monkeypatch.setattr(audit_model, "MAX_OUTLIERS", 2)
    images = rows_of(store, keys.IMAGES)
    others = [
        {
            **images[0],
            "image": f"more/{nth}.jpg",
            "image_key": f"more-{nth}",
            "exact_group": None,
            "near_group": None,
        }
        | {"outlier_score": 50.0 + nth if nth > 97 else 0.1, "n_top": 0}
        for nth in range(100)
    ]
    put_rows(store, keys.IMAGES, [*images, *others])
    page = audit_page_of(store, job)
    listed = page.data["images"]["name"]
    assert (page.n_images, page.n_listed) == (112, len(listed))
    assert listed[-2:] == ["more/98.jpg", "more/99.jpg"]
    assert not [name for name in listed[:-2] if name.startswith("more/")]
    winners = {row["image"] for row in rows_of(store, keys.ATLAS)}
    assert winners < set(listed)
    assert images[5]["image"] in listed  # it failed


def test_of_many_findings_about_images_the_first_are_listed(
    audit: tuple[Store, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, job = audit
    monkeypatch.setattr(audit_model, "MAX_IMAGE_FINDINGS", 2)
    outliers = [finding("outlier", "warning", f"photos/0/image-0000{nth}.jpg") for nth in range(5)]
    put_rows(store, keys.FINDINGS, [*outliers, finding("dead-unit", "info", "pool1:7")])
    write_audit_report(store, job)
    page = page_of(store)
    kept = [(kind, subject) for _, kind, subject, *_ in embedded(page)["findings"]]
    assert kept == [*(("outlier", each["subject"]) for each in outliers[:2]), ("dead-unit", "pool1:7")]
    assert "3 of 6 findings are listed" in page.one("section", id="findings").text


def test_the_single_file_holds_the_pictures_of_every_unit_that_has_any(finished: tuple[Store, Job]) -> None:
    store, _ = finished
    page = page_of(store, keys.SINGLE_PAGE)
    for layer, (n_units, side) in {"pool1": (64, 6), "pool2": (128, 16)}.items():
        uris = embedded(page, f"pictures-{layer}")
        assert set(uris) == {
            f"{unit}-{what}"
            for unit in range(n_units)
            for what in ("reconstructions", "patches", "controls")
            if unit != 7
        }
        for name, n_rows in (("0-reconstructions", 1), ("0-controls", 2)):
            with Image.open(io.BytesIO(data_of(uris[name]))) as picture:
                assert picture.size == (9 * side, n_rows * side)
    assert "are left out" not in page.one("section", id="atlas").text


def test_large_cells_are_made_smaller(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    buffer = io.BytesIO()
    Image.new("RGB", (9 * 112, 2 * 112)).save(buffer, "WEBP")
    store.write(keys.atlas_key("pool5", 3, "controls"), buffer.getvalue())
    uris = embedded_sprites(store, [("pool5", 3)], top=9).uris
    with Image.open(io.BytesIO(data_of(uris["pool5"]["3-controls"]))) as picture:
        assert picture.size == (9 * CELL_PX, 2 * CELL_PX)


def test_pictures_beyond_the_cap_are_left_out_controls_first_and_counted(finished: tuple[Store, Job]) -> None:
    store, job = finished
    units = audit_page_of(store, job).units_with_pictures
    everything = embedded_sprites(store, units, 9)
    n_bytes = sum(
        len(uri) for of in everything.uris.values() for name, uri in of.items() if "controls" not in name
    )
    some = embedded_sprites(store, units, 9, max_bytes=n_bytes)
    names = [name for of in some.uris.values() for name in of]
    assert names
    assert not [name for name in names if "controls" in name]
    assert len(names) == 2 * len(units)
    assert f"{len(units)} of {3 * len(units)} sprites are left out" in some.note


def test_a_sprite_that_is_gone_is_left_out_and_a_broken_one_refused(audit: tuple[Store, Job]) -> None:
    store, _ = audit
    store.delete(keys.atlas_key("pool1", 0, "patches"))
    sprites = embedded_sprites(store, [("pool1", 0)], 9)
    assert set(sprites.uris["pool1"]) == {"0-reconstructions", "0-controls"}
    assert "1 of 3 sprites are left out" in sprites.note
    store.write(keys.atlas_key("pool1", 0, "patches"), b"no picture")
    with pytest.raises(MessageError, match=r"atlas/pool1/unit-000-patches\.webp .* is no readable picture"):
        embedded_sprites(store, [("pool1", 0)], 9)


def test_the_page_is_the_last_thing_written(audit: tuple[Store, Job]) -> None:
    """While it does not stand, the audit is not finished."""
    store, job = audit
    store.write(keys.atlas_key("pool1", 0, "controls"), b"no picture")
    with pytest.raises(MessageError):
        write_audit_report(store, job)
    with pytest.raises(ObjectNotFound):
        store.read(keys.REPORT)


def test_twice_gives_the_same_bytes(audit: tuple[Store, Job]) -> None:
    store, job = audit
    write_audit_report(store, job)
    first = [store.read(key) for key in (keys.REPORT, keys.SINGLE_PAGE)]
    write_audit_report(store, job)
    assert [store.read(key) for key in (keys.REPORT, keys.SINGLE_PAGE)] == first


def test_a_job_that_is_no_audit_is_refused(tmp_path: Path) -> None:
    job = finished_job(tmp_path)
    with pytest.raises(UsageError, match="is no audit"):
        write_audit_report(job.store, job.job)
