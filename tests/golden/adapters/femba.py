"""FEMBA, with its decoder or its classifier."""

import golden_harness as harness

from neurofm.published.femba import masked_smooth_l1

MODELS = ("FEMBA",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    x, mask = inputs["x"], inputs["mask"]
    listed = fixture["tensors"]
    last = len(model.blocks) - 1
    names = {
        "mid.block1_forward_mamba": "blocks.0.forwards",
        "mid.block1_reverse_mamba": "blocks.0.backwards",
        "mid.block1": "blocks.0",
    }
    with (
        harness.recorded(model, names) as found,
        harness.recorded(model, {"mid.last_block": f"blocks.{last}"}) as final,
    ):
        answer = model(x, mask)
    found |= {**final, "mid.patch_embed": model.tokens(x.masked_fill(mask, 0.0))}
    if model.classifier is not None:
        return {**found, "output.logits": answer, "output.logits_unmasked": model(x)}
    found["output.reconstruction"] = answer
    if "loss.masked_smooth_l1" in listed:  # not where patches leave samples over
        hidden, visible = masked_smooth_l1(answer, x, mask)
        found |= {"loss.masked_smooth_l1": hidden, "loss.visible_smooth_l1": visible}
    return found
