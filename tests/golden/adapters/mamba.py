"""The mixers of mamba_ssm."""

import torch

MODELS = ("Mamba block (v1)", "Mamba-2 block")


def run(entry, fixture, weights, inputs):
    mixer = entry.load(fixture["constructor"], weights)
    found = {f"output.y_{name.removeprefix('x_')}": mixer(x) for name, x in inputs.items()}
    first = inputs[first_input(fixture)]

    parts, _ = mixer.project(first, None)
    if "mid.conv_out" in fixture["tensors"]:
        found |= {"mid.conv_out": parts.x, "mid.gate_z": parts.z}
    else:
        found["mid.x"] = parts.x
    found |= {"mid.dt_raw": parts.dt, "mid.B": parts.B, "mid.C": parts.C}
    found["mid.scan_out"] = mixer.scan(parts, None)[0]

    if "output.step_y" in fixture["tensors"]:
        state, steps = None, []
        for t in range(fixture["tensors"]["output.step_y"]["shape"][1]):
            y, state = mixer.step(first[:, t], state)
            steps.append(y)
        found["output.step_y"] = torch.stack(steps, 1)
        found["output.step_conv_state"], found["output.step_ssm_state"] = state
    return found


def first_input(fixture):
    """Activations and steps are of the input listed first."""
    return next(n for n in fixture["tensors"] if n.startswith("input.")).removeprefix("input.")
