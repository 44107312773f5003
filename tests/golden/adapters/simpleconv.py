"""SimpleConv."""

from neurofm.published.simpleconv import UNKNOWN

MODELS = ("SimpleConv (brain decoder with spatial merger and subject layer)",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    x, position, subject = inputs["x"], inputs["positions"], inputs["subject_index"]
    located = (position != UNKNOWN).any(-1)
    found = {"output.y": model(x, position, located, subject)}
    entered = model.enter(x, position, located, subject)
    listed = fixture["tensors"]
    if "mid.position_embedding" in listed:
        found["mid.position_embedding"] = model.merger.embed(position)
    merged = model.merge(x, position, located)
    if "mid.merger" in listed:
        found["mid.merger"] = merged
    if "mid.initial_linear" in listed:
        found["mid.initial_linear"] = model.map(merged)
    if "mid.subject_layer" in listed:
        found["mid.subject_layer"] = entered
    captured = {}
    handle = model.blocks[0].register_forward_pre_hook(
        lambda _, args: captured.setdefault("x", args[0])
    )
    model(x, position, located, subject)
    handle.remove()
    found["mid.sequence1"] = model.blocks[0].inner(captured["x"])
    found["mid.encoder"] = model.convolve(captured["x"])
    return found
