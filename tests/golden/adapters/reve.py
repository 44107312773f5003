"""REVE: the encoder, and masked pretraining."""

import torch
import torch.nn.functional as F
from golden_harness import recorded

from neurofm.published.reve import run_blocks, take

MODELS = ("REVE encoder", "REVE masked auto-encoder")


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    x, position = inputs["x"], inputs["pos"]
    if "masked_indices" in inputs:
        return pretraining(model, x, position, inputs)
    content, place = model.embed(x, position)
    paths = {
        "mid.block1_attention": "blocks.0.attention",
        "mid.block1_feedforward": "blocks.0.feedforward",
    }
    with recorded(model, paths) as seen:
        layers = model.encode(content + place)
        found = {name: v[:, 0] for name, v in seen.items()}
    n_channels = x.shape[1]
    return found | {
        "mid.fourier": model.place.waves(position, content.shape[1] // n_channels).flatten(1, 2),
        "mid.position_embed": place,
        "mid.patch_embed": content.unflatten(1, (n_channels, -1)),
        "mid.all_layers": torch.stack(layers),
        "output.tokens": model(x, position),
        "output.pooled": model.pool(layers[-1]),
    }


def pretraining(model, x, position, inputs):
    masked, visible = inputs["masked_indices"], inputs["visible_indices"]
    target = take(model.encoder.patches(x).flatten(1, 2), masked)

    def step(position):
        content, place = model.encoder.embed(x, position)
        layers = model.encoder.encode(take(content + place, visible))
        entered = model.decoder_input(layers[-1], place, visible, masked)
        left = run_blocks(model.blocks, entered)[-1]
        return layers, place, entered, left, model.decode(left, masked)

    _, _, entered, left, guess = step(position)
    layers, place, _, _, noisy = step(position + inputs.get("position_noise", 0.0))
    total = F.l1_loss(noisy, target)
    if model.config.encoder.pools:
        pooled = model.encoder.pool(torch.cat(layers, 1))
        from_pooled = model.from_pooled(pooled, place, masked)
        total = total + model.config.pooled_weight * F.l1_loss(from_pooled, target)
    return {
        "mid.decoder_in": entered,
        "mid.decoder_out": left,
        "mid.masked_patches": target,
        "output.predicted_patches": guess,
        "loss.l1": F.l1_loss(guess, target),
        "loss.train_mode_total": total,
    }
