"""CBraMod."""

import torch.nn.functional as F
from golden_harness import recorded

MODELS = ("CBraMod",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    x, hide = inputs["x"], inputs["mask"].bool()
    found, last = {}, f"blocks.{len(model.blocks) - 1}"
    with recorded(
        model,
        {
            "convs": "convs",
            "mid.spectral_branch": "spectrum",
            "sites": "blocks.0.attention.across_sites",
            "patches": "blocks.0.attention.across_patches",
            "mid.block1": "blocks.0",
            "mid.last_block": last,
        },
    ) as seen:
        found["output.reconstruction"] = model(x)
        found["mid.conv_branch"] = (
            seen.pop("convs").unflatten(-1, (model.convs.n_filters, -1)).transpose(1, 2)
        )
        found["mid.block1_spatial_attention"] = seen.pop("sites").transpose(1, 2).flatten(0, 1)
        found["mid.block1_temporal_attention"] = seen.pop("patches").flatten(0, 1)
        found |= seen
    found["mid.patch_embedding"] = model.embed(x)
    guess = model(x, hide)
    found["output.masked_reconstruction"] = guess
    found["loss.masked_mse"] = F.mse_loss(guess[hide], x[hide])
    return found
