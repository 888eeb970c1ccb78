"""Compiles the train step of HARE-1.1B for accelerators that are not attached to this machine.

    python main.py --config=configs/aot.py:v5e-8 --workdir=runs/aot
    python main.py --config=configs/aot.py:2xv5e-16 --workdir=runs/aot --config.largest=False
    python main.py --config=configs/aot.py:h200 --workdir=runs/aot --config.training.accumulation=32

The report says whether the program fits into memory, what it costs, and the largest batch that
fits. TPUs (v5e-8, v5p-8, v6e-8 and larger) need the extra `tpu`, GPUs (h100, h200, 8xh200) the
extra `gpu`; `cpu` compiles for the devices of this process. No data is read. Other models:

    --config.model.num_layers=16 --config.training.mesh.tensor=2 --config.sequence_length=4096
"""

from __future__ import annotations

from configs import hare_1b
from hare_jax.config import AheadOfTime


def get_config(hardware: str = "") -> AheadOfTime:
    """Returns the job for an accelerator, such as "v5e-8" or "h200"."""
    if not hardware:
        raise ValueError("configs/aot.py:HARDWARE needs a name, such as v5e-8, 2xv5e-16 or h200")
    return AheadOfTime(hardware, hare_1b.model(), hare_1b.training())
