"""EEGPT."""

import torch.nn.functional as F
from golden_harness import recorded

from neurofm.published.eegpt import combine

MODELS = ("EEGPT (encoder, predictor, reconstructor)",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    x, names = inputs["x"], inputs["chan_ids"][0]
    visible, hidden = inputs["mask_x"], inputs["mask_y"]
    patches = model.patches(x)
    last = f"encoder.blocks.{len(model.encoder.blocks) - 1}"
    with recorded(model, {"mid.block1": "encoder.blocks.0", "mid.last_block": last}) as seen:
        found = {"output.encoder": model.encoder(patches, names)}
        found |= {name: value[:, 0] for name, value in seen.items()}
    summary, samples = model.targets(x, names, hidden)
    part = model.encoder(patches, names, visible)
    times = visible[:, 0] // len(names)
    predicted = model.predictor(part, times, patches.shape[1])
    combined = combine(part, predicted, times)
    guess = model.reconstructor(combined, names, hidden)
    alignment, reconstruction = F.mse_loss(predicted, summary), F.mse_loss(guess, samples)
    return found | {
        "mid.patch_embed": model.encoder.embed(patches),
        "mid.target_encoder_normed": summary,
        "mid.target_patches": samples,
        "mid.encoder_masked": part,
        "output.predictor": predicted,
        "mid.combined": combined,
        "output.reconstruction": guess,
        "loss.alignment_mse": alignment,
        "loss.reconstruction_mse": reconstruction,
        "loss.total": alignment + reconstruction,
    }
