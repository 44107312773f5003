"""BaRISTA: segments of several montages, packed one after the other."""

import torch
from golden_harness import recorded

MODELS = ("BaRISTA (channels)", "BaRISTA (parcels)", "BaRISTA (lobes)")


def pack(tokens):
    """(B, C, P, D) of each montage to (1, all tokens, D), time slow, channels fast."""
    return torch.cat([t.transpose(1, 2).flatten(0, 2) for t in tokens])[None]


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    grids, blocks, latents, lengths, times = [], [], [], [], []
    paths = {
        "convs": "convs",
        "first": "backbone.blocks.0",
        "last": f"backbone.blocks.{len(model.backbone.blocks) - 1}",
    }
    for i in range(len(fixture["constructor"]["sessions"])):
        with recorded(model, paths) as seen:
            signal, rows = inputs[f"x{i}"].transpose(1, 2), inputs[f"spatial_ids{i}"]
            latents.append(model(signal, rows))
            grids.append(model.grid(signal, rows))
            blocks.append(seen)
        n_windows, n_channels, n_patches, _ = latents[-1].shape
        lengths += [n_channels * n_patches] * n_windows
        times.append(torch.arange(n_patches).repeat_interleave(n_channels).repeat(n_windows))
    length = model.config.patch_len
    shape = (*latents[0].shape[:3], length)
    found = {
        "mid.temporal_encoder_first": pack([blocks[0]["convs"][:, 0].view(shape)])[:, None],
        "mid.tokens": pack([grid.tokens for grid in grids]),
        "mid.spatial_embedding": pack([grid.place.expand_as(grid.content) for grid in grids]),
        "mid.position_ids": torch.cat(times)[None],
        "mid.sequence_lengths": torch.tensor(lengths),
        "mid.block1": pack([b["first"] for b in blocks]),
        "mid.last_block": pack([b["last"] for b in blocks]),
        "output.latents": pack(latents),
    }
    if fixture["constructor"]["downstream_outputs"]:
        found["output.logits"] = model.classify(latents[0])
    return found
