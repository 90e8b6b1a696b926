"""What this machine computes with: `python -m worker.machine.describe` prints JSON.

`deconvoy doctor` runs this in a process of its own, since the producer never imports torch.
"""

from __future__ import annotations

import json
import sys


def describe() -> dict[str, object]:
    """Torch's version, the names of the GPUs that it sees, and the threads that it uses on the CPU."""
    import torch

    n_gpus = torch.cuda.device_count()
    return {
        "torch": torch.__version__,
        "gpus": [torch.cuda.get_device_name(index) for index in range(n_gpus)],
        "cpu_threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe()) + "\n")
