"""The columns of what an audit leaves. A promise to readers: docs/audits.md explains each.

The unit of all statistics is the image: of each unit of each layer, an image has one *peak*, its strongest
activation. Places within one image are no independent samples; their number above zero is counted apart.
"""

from __future__ import annotations

import pyarrow as pa

from worker.contract.architectures import Layer


def profile_schema(layers: tuple[Layer, ...]) -> pa.Schema:
    """A scan shard's record: a row an image, in manifest order. What a failed image cannot have is null.

    `peak_<layer>` are its units' peaks, `firing_<layer>` the places of each unit's map that are above zero.
    `difference_hash`: 64 bits, from the preprocessed image. `nonfinite`: peaks that are NaN or infinite.
    """
    fields = [
        pa.field("image", pa.string(), nullable=False),
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("source_sha256", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("source_width", pa.int32()),
        pa.field("source_height", pa.int32()),
        pa.field("difference_hash", pa.uint64()),
        pa.field("nonfinite", pa.int64()),
    ]
    for layer in layers:
        fields.append(pa.field(f"peak_{layer.name}", pa.list_(pa.float32(), layer.channels)))
        fields.append(pa.field(f"firing_{layer.name}", pa.list_(pa.int32(), layer.channels)))
    return pa.schema(fields)


ATLAS_SCHEMA = pa.schema(
    [
        pa.field("layer", pa.string(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("activation", pa.float32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("y", pa.int32()),
        pa.field("x", pa.int32()),
        pa.field("left", pa.int32()),
        pa.field("top", pa.int32()),
        pa.field("right", pa.int32()),
        pa.field("bottom", pa.int32()),
        pa.field("source_box", pa.list_(pa.float64())),
        pa.field("other_unit_similarity", pa.float32()),
        pa.field("random_weights_similarity", pa.float32()),
        pa.field("nonfinite", pa.int64()),
        pa.field("scale", pa.float32()),
    ]
)
"""A row a winner: rank 0 is the strongest. `scale` is the unit's own, the same in all its rows."""

UNITS_SCHEMA = pa.schema(
    [
        pa.field("layer", pa.string(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("n_images", pa.int64(), nullable=False),
        pa.field("firing_images", pa.int64(), nullable=False),
        pa.field("firing_rate", pa.float64(), nullable=False),
        pa.field("firing_places", pa.float64(), nullable=False),
        pa.field("mean", pa.float64(), nullable=False),
        pa.field("variance", pa.float64(), nullable=False),
        pa.field("max", pa.float32(), nullable=False),
        pa.field("histogram_edges", pa.list_(pa.float32()), nullable=False),
        pa.field("histogram_counts", pa.list_(pa.int64()), nullable=False),
        pa.field("top_image_keys", pa.list_(pa.string()), nullable=False),
        pa.field("top_activations", pa.list_(pa.float32()), nullable=False),
        pa.field("specificity", pa.float64()),
        pa.field("training_effect", pa.float64()),
        pa.field("psi", pa.float64()),
        pa.field("ks", pa.float64()),
        pa.field("top_turnover", pa.float64()),
        pa.field("state", pa.string(), nullable=False),
    ]
)
"""A row a unit. `firing_images`: images whose peak is above zero; `firing_rate`: their share;
`firing_places`: the share of all places of all images that are above zero. `mean`, `variance` (of the
population) and `max` are over images' peaks. `histogram_edges[i]` is the lower edge of the bin that
`histogram_counts[i]` counts, ascending; only bins that hold something; what is not above zero is in a bin
with edge 0. `specificity`: 1 minus the mean cosine to another unit's reconstructions; `training_effect`: 1
minus that to untrained kernels'. `psi`, `ks`, `top_turnover`: against the baseline, null without one.
`state`: `live`, `dead` (no image makes it fire) or `always-on` (every place of every image does)."""

IMAGES_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("source_sha256", pa.string()),
        pa.field("source_width", pa.int32()),
        pa.field("source_height", pa.int32()),
        pa.field("difference_hash", pa.uint64()),
        pa.field("outlier_score", pa.float64()),
        pa.field("strongest_units", pa.list_(pa.string())),
        pa.field("n_top", pa.int32(), nullable=False),
        pa.field("exact_group", pa.string()),
        pa.field("near_group", pa.string()),
    ]
)
"""A row an image, in the order of the sources. `strongest_units`: of the deepest layer, as `pool5:17`, the
most unusual first. `n_top`: of how many units it is one of the top images. Groups are named by the first
image key (in the order of keys) of those that are alike; null: there is no other."""

FINDINGS_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("number", pa.float64()),
        pa.field("why", pa.string(), nullable=False),
    ]
)
"""A row a finding: the gravest first, then by number. `subject` is an image as submitted, `LAYER:UNIT`, a
layer, or `audit`."""
