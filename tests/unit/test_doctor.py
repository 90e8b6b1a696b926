"""`deconvoy doctor` on stores: whether they work, and whether they know conditional writes."""

from __future__ import annotations

from pathlib import Path

from producer.doctor import Finding, examine
from tests.s3_server import UseS3, ignoring_conditions


def store_finding(out: str) -> Finding:
    (finding,) = (finding for finding in examine(out, None) if finding.subject == "store")
    return finding


def test_a_folder_honours_conditional_writes(tmp_path: Path) -> None:
    finding = store_finding(str(tmp_path))
    assert finding.ok
    assert finding.text == f"{tmp_path} can be written and read; it honours conditional writes"


def test_a_bucket_that_honours_conditional_writes_is_known_as_such(s3_bucket: str) -> None:
    finding = store_finding(f"s3://{s3_bucket}/out")
    assert finding.ok
    assert finding.text == f"s3://{s3_bucket}/out can be written and read; it honours conditional writes"


def test_a_bucket_that_ignores_conditional_writes_works_and_is_known_as_such(
    s3_endpoint: str, s3_bucket: str, use_s3: UseS3
) -> None:
    with ignoring_conditions(s3_endpoint) as url:
        use_s3(url)
        finding = store_finding(f"s3://{s3_bucket}")
    assert finding.ok
    assert "can be written and read; it ignores conditional writes" in finding.text


def test_a_bucket_that_does_not_exist_is_a_problem(s3_environment: dict[str, str]) -> None:
    finding = store_finding("s3://no-such-bucket/out")
    assert not finding.ok
    assert "there is no such bucket" in finding.text
