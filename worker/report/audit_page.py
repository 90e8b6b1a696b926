"""Renders the page of an audit twice: once with its pictures beside it, once with them inside."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from markupsafe import Markup

from worker.audit.drift import ALPHA, DRIFT_PSI
from worker.audit.duplicates import MAX_BITS, MIN_SIMILARITY
from worker.audit.outliers import LIMIT_MADS
from worker.contract import keys
from worker.contract.jobs import Job
from worker.report.audit_model import AuditPage, audit_page_of
from worker.report.sprites import EmbeddedSprites, embedded_sprites
from worker.report.templates import environment, own_text
from worker.storage import Store

_LIMITS = {
    "alpha": ALPHA,
    "psi": DRIFT_PSI,
    "bits": MAX_BITS,
    "similarity": MIN_SIMILARITY,
    "mads": round(LIMIT_MADS),
}
"""What the method's note says of the findings' thresholds."""
_STYLES = ("page.css", "audit.css")
_SCRIPTS = ("audit.js", "audit_atlas.js", "audit_unit.js", "audit_tables.js")


def write_audit_report(store: Store, job: Job) -> None:
    """Write `report/single.html`, then `report/index.html`, of an audit whose tables stand in `store`.

    The second reads the atlas's pictures from beside it, from a folder or a public bucket; the first holds
    them itself, smaller, for a link that gives one file. Raises a StorageError, MessageError, UsageError.
    """
    page = audit_page_of(store, job)
    single = _render(page, embedded_sprites(store, page.units_with_pictures, page.options.top))
    store.write(keys.SINGLE_PAGE, single.encode())
    store.write(keys.REPORT, _render(page, None).encode())


def script_json(value: Any) -> Markup:
    """JSON that can stand in a script element: no character in it that HTML or JavaScript reads otherwise."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 (just escaped)


def _render(page: AuditPage, sprites: EmbeddedSprites | None) -> str:
    script = own_text(*_SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        environment()
        .get_template("audit.html")
        .render(
            page=page,
            limits=_LIMITS,
            css=own_text(*_STYLES),
            script=script,
            script_hash=f"sha256-{digest}",
            image_source="'self' file: data:" if sprites is None else "data:",
            data=script_json(page.data),
            pictures={}
            if sprites is None
            else {layer: script_json(of) for layer, of in sprites.uris.items()},
            note="" if sprites is None else sprites.note,
        )
    )
