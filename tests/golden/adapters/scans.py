"""The two scans as bare operations."""

from neurofm.nn.selective_scan import selective_scan
from neurofm.nn.ssd import ssd_scan

SELECTIVE = "selective scan (Mamba v1 operation)"
SSD = "SSD chunked scan (Mamba-2 operation)"
MODELS = (SELECTIVE, SSD)
PARTS = {SELECTIVE: ("nn.selective_scan",), SSD: ("nn.ssd",)}


def run(entry, fixture, weights, inputs):
    one = run_selective if fixture["model"] == SELECTIVE else run_ssd
    found = {}
    for name, case in fixture["cases"].items():
        tensors = {k.split(".", 1)[1]: v for k, v in inputs.items() if k.split(".", 1)[0] == name}
        found |= {f"output.{name}.{k}": v for k, v in one(tensors, case).items()}
    return found


def run_selective(tensors, case):
    operands = [tensors.pop(name) for name in ("u", "delta", "A", "B", "C")]
    y, last = selective_scan(
        *operands, tensors.pop("D", None), delta_softplus=case["delta_softplus"], **tensors
    )
    return {"y": y, "last_state": last}


def run_ssd(tensors, case):
    operands = [tensors.pop(name) for name in ("x", "dt", "A", "B", "C")]
    y, last = ssd_scan(
        *operands,
        state=tensors.pop("initial_states", None),
        chunk_size=case["chunk_size"],
        dt_softplus=case["dt_softplus"],
        dt_limit=tuple(float(limit) for limit in case["dt_limit"]),
        **tensors,
    )
    return {"y": y, "final_state": last}
