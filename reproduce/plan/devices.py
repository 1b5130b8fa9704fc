"""The devices that a plan can assume: their memory, and the rates that training sustains on them."""

from __future__ import annotations

from dataclasses import dataclass

from lfreeze.errors import InputError

# Of the datasheet's dense peak, what training sustains. Model FLOPs of a 3-billion-parameter model in bf16
# autocast, 512 tokens, without activation checkpointing: 458 TFLOP/s on an H100 and 199 on an A100 with 80 GB
# (MosaicML's llm-foundry, scripts/train/benchmarking/README.md). Elsewhere the lower of the two is assumed.
# At 128 tokens and with other kernels a trial sustains less: `reproduce plan --calibrate` measures.
_H100_SHARE, _A100_SHARE = 0.463, 0.637


@dataclass(frozen=True)
class Device:
    """A device by its name in ``--gpu``.

    Attributes:
        memory_gib: in GiB, as its name states it.
        bf16_tflops, fp32_tflops: dense peaks of NVIDIA's datasheets, with fp32 accumulation; a GPU without
            bf16 units computes bf16 no faster than fp32.
        sustained: the share of the peak that training sustains.
    """

    name: str
    memory_gib: float
    bf16_tflops: float
    fp32_tflops: float
    sustained: float = _H100_SHARE

    def rate(self, precision: str) -> float:
        """The sustained rate in FLOP/s."""
        peak = self.fp32_tflops if precision == "fp32" else self.bf16_tflops
        return self.sustained * peak * 1e12


DEVICES = {
    device.name: device
    for device in (
        Device("h100", 80, 989, 67),
        Device("h200", 141, 989, 67),
        Device("a100-80", 80, 312, 19.5, _A100_SHARE),
        Device("a100-40", 40, 312, 19.5, _A100_SHARE),
        Device("l40s", 48, 362, 91.6),
        Device("l4", 24, 121, 30.3),
        Device("rtx-4090", 24, 165.2, 82.6),
        Device("rtx-3090", 24, 71, 35.6),
        Device("v100", 32, 15.7, 15.7),
        Device("t4", 16, 8.1, 8.1),
    )
}
DEFAULT = DEVICES["h100"]
# The median over the trials of artifacts/reference/embedded-full: tiny models, fp32, one core each.
CPU_CORE = Device("cpu core", DEFAULT.memory_gib, 0.02, 0.02, 1.0)


def get_device(name: str) -> Device:
    """The device called ``name``, whatever its case.

    Raises:
        InputError: there is none.
    """
    try:
        return DEVICES[name.strip().lower()]
    except KeyError:
        raise InputError(f"--gpu {name!r} is not one of {', '.join(DEVICES)}") from None
