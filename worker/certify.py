"""Certify weights on this machine: `python -m worker.certify WEIGHTS MODEL PRECISION` prints JSON.

`deconvoy doctor --certify` runs this in a process of its own, since the producer never imports torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from worker.contract.errors import DeconvoyError
from worker.contract.settings import load_settings


def main(arguments: Sequence[str]) -> int:
    """Print the certificate of WEIGHTS MODEL PRECISION. An error of ours: one line on stderr, exit code 1."""
    from worker.deconv import Deconvnet, certify

    weights, model, precision = arguments
    try:
        settings = load_settings()
        net = Deconvnet.load(
            weights,
            model=model,
            device=settings.device,
            precision=precision,  # type: ignore[arg-type]  # Deconvnet refuses one that it does not know
            cache_dir=settings.cache_dir,
        )
        certificate = certify(net)
    except DeconvoyError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(certificate.to_dict()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
