"""The GPUs that torch can use here; ``python -m reproduce.run.gpus`` prints them as JSON."""

from __future__ import annotations

import json


def usable_gpus() -> list[tuple[str, int, str]]:
    """The model, the memory in bytes and the unique identifier of each GPU."""
    import torch

    if not torch.cuda.is_available():
        return []
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [(gpu.name, gpu.total_memory, str(gpu.uuid)) for gpu in gpus]


if __name__ == "__main__":
    print(json.dumps(usable_gpus()))
