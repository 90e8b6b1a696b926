"""The page's table of times: in an image's order, the slowest stage named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report_job import FinishedJob, finished_job, read_html


@pytest.fixture
def one_photograph(tmp_path: Path) -> FinishedJob:
    job = finished_job(tmp_path, ["pool1:max"])
    job.add("/photos/cat.png")
    return job


def test_timings_are_in_an_images_order_and_name_the_slowest_stage(one_photograph: FinishedJob) -> None:
    stages = {"write": 1.0, "project": 4.5, "forward": 1.5, "read": 0.5, "decode": 2.5, "thinking": 0.0}
    section = read_html(one_photograph.write(stages)).one("section", id="timings")
    lines = section.one("tbody").all("tr")
    assert [line.one("th").text.split()[0] for line in lines] == [
        "read",
        "decode",
        "forward",
        "project",
        "write",
        "thinking",
    ]
    assert [line.one("td").text for line in lines] == [
        "0.50 s",
        "2.50 s",
        "1.50 s",
        "4.50 s",
        "1.00 s",
        "0.00 s",
    ]
    assert "project : 4.50 s, 45% of all stages" in section.text
    assert section.one("tr", class_="slowest").one("td").text == "4.50 s"
    shares = [line.one("span", class_="bar").attributes["style"] for line in lines]
    assert shares[3] == "--share: 1.0000"
    assert shares[1] == "--share: 0.5556"


def test_to_wait_is_shown_but_is_never_the_slowest_stage(one_photograph: FinishedJob) -> None:
    section = read_html(one_photograph.write({"decode": 2.0, "wait": 8.0})).one("section", id="timings")
    assert "decode : 2.00 s, 20% of all stages" in section.text
    shares = [bar.attributes["style"] for bar in section.all("span", class_="bar")]
    assert shares == ["--share: 0.2500", "--share: 1.0000"]


@pytest.mark.parametrize("stages", [{}, {"read": 0.0, "project": 0.0}])
def test_a_job_without_measured_time_has_a_page(
    one_photograph: FinishedJob, stages: dict[str, float]
) -> None:
    section = read_html(one_photograph.write(stages)).one("section", id="timings")
    assert ("No time was recorded" in section.text) == (not stages)
