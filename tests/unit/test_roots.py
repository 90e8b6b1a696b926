"""Which images may be read. No path outside a root is ever accepted."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.errors import ImageNotAllowed, JobError, SettingsError
from worker.contract.roots import check_image, check_place, parse_roots
from worker.contract.settings import Settings, load_settings

PARTS = st.lists(st.sampled_from(["a", "b", "ab", "..", ".", "", "link", "a.jpg"]), max_size=8)


def is_allowed(image: str, *roots: str) -> bool:
    try:
        check_image(image, roots)
    except ImageNotAllowed:
        return False
    return True


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`in` is the root; `in/link` leads out, `in/a/link` to another folder inside, `out/link` in."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("in/a/b", "in/b", "in/ab", "out/a", "in-2/a"):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.jpg").touch()
    (folder / "in/link").symlink_to("../out")
    (folder / "in/a/link").symlink_to("../b")
    (folder / "out/link").symlink_to(folder / "in")
    (folder / "root-link").symlink_to("in")
    return folder


@pytest.mark.parametrize(
    "image",
    [
        "http://host/a.jpg",
        "file:///etc/passwd",
        "/data/file:///etc/passwd",
        "/data/s3://bucket/a.jpg",
        "s3://bucket/http://host/a.jpg",
        "S3://bucket/a.jpg",
        "://",
        "s3://",
        "s3:///a.jpg",
        "s3://bucket",
        "s3://bucket/",
        "s3://buc ket/a.jpg",
        "s3://bucket/../other/a.jpg",
        "s3://bucket/a/..",
        "s3://../a.jpg",
    ],
)
def test_what_is_neither_a_file_nor_an_object_is_refused_without_roots_too(image: str) -> None:
    with pytest.raises(ImageNotAllowed) as caught:
        check_image(image, ())
    assert repr(image) in str(caught.value)


@pytest.mark.parametrize(
    "image", ["/data/a.jpg", "/data/../b", "s3:/a.jpg", "s3://bucket/a..b/ü\n.jpg", "\0"]
)
def test_without_roots_every_file_and_object_is_allowed(image: str) -> None:
    check_image(image, ())


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("in/a/a.jpg", True),
        ("in/a/b/gone.jpg", True),
        ("in/a/link/a.jpg", True),
        ("out/link/a/a.jpg", True),
        ("in/../in/a/a.jpg", True),
        ("root-link/a/a.jpg", True),
        ("in/link/a/a.jpg", False),
        ("in/../out/a/a.jpg", False),
        ("in/link/../in-2/a/a.jpg", False),
        ("in-2/a/a.jpg", False),
        ("in", False),
        ("in/nul\0.jpg", False),
    ],
)
@pytest.mark.parametrize("root", ["in", "in/", "root-link"])
def test_a_file_lies_where_its_path_leads(tree: Path, root: str, image: str, allowed: bool) -> None:
    assert is_allowed(f"{tree}/{image}", "s3://bucket", f"{tree}/{root}") is allowed


@given(PARTS)
def test_of_what_there_is_that_under_the_root_is_allowed_and_nothing_else(
    tree: Path, parts: list[str]
) -> None:
    image = Path(tree, "in", *parts)
    inside = {path.stat().st_ino for path in tree.glob("in/**/*") if not path.is_symlink()}

    if image.exists():
        allowed = is_allowed("/".join([f"{tree}/in", *parts]), f"{tree}/in")
        assert allowed is (image.stat().st_ino in inside)


@pytest.mark.parametrize(
    ("image", "root", "allowed"),
    [
        ("s3://bucket/a.jpg", "s3://bucket", True),
        ("s3://bucket/a.jpg", "s3://bucket/", True),
        ("s3://bucket/photos/2026/a.jpg", "s3://bucket/photos", True),
        ("s3://bucket/photos/2026/a.jpg", "s3://bucket/photos/", True),
        ("s3://bucket-evil/a.jpg", "s3://bucket", False),
        ("s3://other/photos/a.jpg", "s3://bucket/photos", False),
        ("s3://bucket/photos2/a.jpg", "s3://bucket/photos", False),
        ("s3://bucket/photos", "s3://bucket/photos", False),
        ("s3://bucket/photos/../secret/a.jpg", "s3://bucket/photos", False),
        ("s3://bucket/a.jpg", "/", False),
        ("/bucket/a.jpg", "s3://bucket", False),
    ],
)
def test_an_object_lies_under_a_prefix_by_whole_parts(image: str, root: str, allowed: bool) -> None:
    assert is_allowed(image, root) is allowed


@given(bucket=st.sampled_from(["bucket", "bucket-2", "bucke"]), parts=PARTS)
def test_no_object_outside_the_prefix_is_ever_allowed(bucket: str, parts: list[str]) -> None:
    image = "/".join([f"s3://{bucket}", *parts])

    if is_allowed(image, "s3://bucket/a"):
        # Also for a server that takes dots and empty parts out of keys.
        assert f"{posixpath.normpath(image.removeprefix('s3:/'))}/".startswith("/bucket/a/")


def test_roots_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECONVOY_ALLOWED_ROOTS", "/data, s3://photos/2026,s3://more")

    assert load_settings().allowed_roots == ("/data", "s3://photos/2026", "s3://more")


@pytest.mark.parametrize("text", [None, ""])
def test_no_roots_allow_everything(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    monkeypatch.delenv("DECONVOY_ALLOWED_ROOTS", raising=False)
    if text is not None:
        monkeypatch.setenv("DECONVOY_ALLOWED_ROOTS", text)

    assert load_settings().allowed_roots == ()


@pytest.mark.parametrize(
    "root", ["photos", "~/photos", "http://host", "s3://", "s3://b/../c", "S3://b", " ", "[]"]
)
@pytest.mark.parametrize("others", ["", "/data,"])
def test_a_root_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch, others: str, root: str) -> None:
    monkeypatch.setenv("DECONVOY_ALLOWED_ROOTS", others + root)

    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == (
        f"DECONVOY_ALLOWED_ROOTS={others + root!r} cannot be used: {root.strip()!r} is neither an absolute "
        "folder nor s3://bucket/prefix; correct it or unset it"
    )


def test_roots_that_are_given_as_they_are_are_checked_too() -> None:
    assert Settings(allowed_roots=("/a,b",)).allowed_roots == ("/a,b",)
    with pytest.raises(ValueError, match="neither an absolute folder"):
        parse_roots(["data"])


@pytest.mark.parametrize("place", ["other://x/job", "s3://other/x/job", "x://../job"])
def test_a_place_of_another_scheme_is_no_path_below_the_folder_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    check_place(f"{tmp_path}/x/job", [str(tmp_path)])

    with pytest.raises(JobError, match="no job may stand at"):
        check_place(place, [str(tmp_path), "s3://bucket"])
