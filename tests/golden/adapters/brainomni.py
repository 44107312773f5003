"""BrainOmni."""

import torch
import torch.nn.functional as F
from golden_harness import recorded

from neurofm.published.brainomni import hide

MODELS = ("BrainOmni",)
KEPT = 0.8  # of masked tokens, the share that the mask token replaces


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    found = model.tokenize(inputs["x"], inputs["pos"], inputs["sensor_type"])
    tokens, codes = found.content, found.codes
    n = len(model.blocks)
    paths = {
        "sites": "blocks.0.attention.across_sites",
        "patches": "blocks.0.attention.across_patches",
        "mid.block1": "blocks.0",
    }
    if n > 1:
        paths["mid.last_used_block"] = f"blocks.{n - 2}"
    with recorded(model, paths) as seen:
        out = {"output.encode": model.encode(tokens)}
        if n > 1:  # or else no block is run but the last, which is for pretraining
            out["mid.block1_source_attention"] = seen.pop("sites").transpose(1, 2).flatten(0, 1)
            out["mid.block1_time_attention"] = seen.pop("patches").flatten(0, 1)
        out |= seen

    where = inputs["mask_uniform"] <= fixture["constructor"]["mask_ratio"]
    drawn = inputs["random_token_permutation"].view(where.shape)
    instead = torch.where(inputs["replace_uniform"] > KEPT, drawn, -1)
    masked = hide(tokens, where, instead, model.mask_token)
    with recorded(model, {"mid.masked_last_block": f"blocks.{n - 1}"}) as seen:
        scores = model(masked)
        out |= seen
    labels = codes[..., : scores.shape[-2]]
    guesses = scores[where].argmax(-1)
    return out | {
        "mid.tokens": tokens,
        "output.codes": codes,
        "mid.projection_in": model.enter(tokens),
        "mid.masked_in": model.enter(masked),
        "output.masked_logits": scores.flatten(-2),
        "loss.cross_entropy": F.cross_entropy(scores[where].flatten(0, 1), labels[where].flatten()),
        "loss.accuracy": (guesses == labels[where]).float().mean(),
    }
