"""A finished job in a folder, small and made by hand, for the tests of the page; and a reader of HTML."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from worker.contract.jobs import Job, Request, WeightsRef
from worker.contract.keys import REPORT, image_key, input_key, recon_key
from worker.contract.records import Row, table_of, work_metadata
from worker.contract.specs import LayerSpec
from worker.pipeline import Excerpt
from worker.report import write_report
from worker.storage import Store, open_store

SIZE = (64, 48)
Box = tuple[int, int, int, int]


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = SIZE) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


def png(colour: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class FinishedJob:
    """Collects rows and puts their pictures into the store, as the pipeline does."""

    store: Store
    request: Request
    rows: list[Row] = field(default_factory=list)

    @property
    def job(self) -> Job:
        n_images = len({row.image for row in self.rows})
        return Job(
            id="holiday-0123456789",
            place=self.store.place,
            created=datetime(2026, 3, 4, 5, 6, tzinfo=UTC),
            request=self.request,
            shard_size=500,
            n_images=max(n_images, 1),
            n_shards=1,
            fingerprint="0123456789" + "0" * 54,
            versions={"deconvoy": "0.1.0"},
        )

    def add(self, image: str, change: Callable[[Row], Row] = lambda row: row) -> None:
        """An image that went well. Unit, place and window of each row differ; `change` alters a row."""
        key = image_key(image)
        self.store.write(input_key(key), jpeg((len(self.rows) % 256, 90, 160)))
        for spec in self.request.parsed_specs():
            for nth in range(spec.n_results):
                row = change(self._row(image, spec, nth))
                assert row.key is not None
                self.store.write(row.key, _picture(row, len(self.rows)))
                self.rows.append(row)

    def add_failure(self, image: str, error: str, message: str) -> None:
        """An image that failed: a row for each spec, as in the index."""
        self.rows += [
            Row(
                image=image,
                image_key=image_key(image),
                status="failed",
                error=error,
                message=message,
                spec=str(spec),
                layer=spec.layer.name,
                selection=spec.selection,
                shard=0,
            )
            for spec in self.request.parsed_specs()
        ]

    def write(
        self, stages: dict[str, float] | None = None, metadata: dict[bytes, bytes] | None = None
    ) -> str:
        """Write the page; its text."""
        work = work_metadata({"project": 1.0} if stages is None else stages, {"peak_rss_bytes": 1})
        table = table_of(self.rows).replace_schema_metadata({**work, **(metadata or {})})
        bad = {row.image for row in self.rows if row.status != "ok"}
        write_report(self.store, self.job, Excerpt(table, len({row.image for row in self.rows}), len(bad)))
        return self.store.read(REPORT).decode()

    def _row(self, image: str, spec: LayerSpec, nth: int) -> Row:
        key = image_key(image)
        number = len(self.rows)
        row = Row(
            image=image,
            image_key=key,
            status="ok",
            spec=str(spec),
            layer=spec.layer.name,
            selection=spec.selection,
            key=recon_key(spec, key, self.request.format),
            scale=10.0 + number,
            nonfinite=0,
            left=0,
            top=0,
            right=SIZE[0],
            bottom=SIZE[1],
            width=SIZE[0],
            height=SIZE[1],
            source_width=640,
            source_height=480,
            shard=0,
            input_key=input_key(key),
        )
        if spec.is_whole_map:
            return row
        unit = spec.units[nth] if spec.units else 30 - nth
        left, top = number % 40, (3 * number) % 30
        return replace(
            row,
            unit=unit,
            y=number,
            x=number + 1,
            activation=100.5 - number,
            key=recon_key(spec, key, self.request.format, unit),
            left=left,
            top=top,
            right=left + 6 + number % 5,
            bottom=top + 6,
        )


def finished_job(
    folder: Path, specs: Sequence[str] | None = None, weights: str = "hed", picture_format: str = "png"
) -> FinishedJob:
    """An empty one; `specs` are the article's ten unless told."""
    request = Request(weights=WeightsRef(name=weights)) if specs is None else Request(specs=tuple(specs))
    return FinishedJob(open_store(folder), request.model_copy(update={"format": picture_format}))


def _picture(row: Row, number: int) -> bytes:
    left, top, right, bottom = box_of(row)
    return png((number % 256, 200, number // 256), (right - left, bottom - top))


def box_of(row: Row) -> Box:
    """The row's window."""
    assert row.left is not None
    assert row.top is not None
    assert row.right is not None
    assert row.bottom is not None
    return row.left, row.top, row.right, row.bottom


_VOID = {"meta", "img", "br", "link", "base", "input", "hr"}


@dataclass
class Node:
    """An element: `text` is all text within, white space collapsed."""

    tag: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        raw = "".join(child if isinstance(child, str) else f"{child.text} " for child in self.children)
        return " ".join(raw.split())

    def all(self, tag: str, **attributes: str) -> list[Node]:
        """The elements within, in document order; `class_` and `id` as in HTML, a class among others."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [node for node in self._walk() if node.tag == tag and node._has(wanted)]

    def one(self, tag: str, **attributes: str) -> Node:
        """The only such element."""
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} elements <{tag}> with {attributes}"
        return found[0]

    def facts(self) -> dict[str, str]:
        """The `dl` lists within: term -> description."""
        return {
            node.one("dt").text: node.one("dd").text
            for node in self.all("div")
            if [child.tag for child in node.children if isinstance(child, Node)] == ["dt", "dd"]
        }

    def _has(self, wanted: dict[str, str]) -> bool:
        return all(
            value in self.attributes.get(name, "").split()
            if name == "class"
            else self.attributes.get(name) == value
            for name, value in wanted.items()
        )

    def _walk(self) -> Iterator[Node]:
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child._walk()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.path = [Node("document", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.path[-1].children.append(node)
        if tag not in _VOID:
            self.path.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.path[-1].children.append(Node(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.path[-1].tag == tag, f"</{tag}> closes <{self.path[-1].tag}>"
        self.path.pop()

    def handle_data(self, data: str) -> None:
        self.path[-1].children.append(data)


def read_html(text: str) -> Node:
    """The document's tree. Fails where an element is closed that is not the last one opened."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.path) == 1, f"<{reader.path[-1].tag}> is never closed"
    return reader.path[0]


def data_of(uri: str) -> bytes:
    """The bytes of a data: URI of a picture."""
    match = re.fullmatch(r"data:image/(?:png|jpeg|webp);base64,([A-Za-z0-9+/=]+)", uri)
    assert match, uri[:60]
    return base64.b64decode(match[1], validate=True)
