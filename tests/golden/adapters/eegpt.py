"""EEGPT."""

import torch.nn.functional as F

from neurofm.published.eegpt import combine

MODELS = ("EEGPT (encoder, predictor, reconstructor)",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    x, names = inputs["x"], inputs["chan_ids"][0]
    visible, hidden = inputs["mask_x"], inputs["mask_y"]
    patches = model.patches(x)
    found = {"output.encoder": model.encoder(patches, names)}
    tokens = model.encoder.tokens(patches, names)
    for i, block in enumerate(model.encoder.blocks):  # the encoder leaves out most of the last
        tokens = block(tokens[:, None], None, None)[:, 0]
        if i == 0:
            found["mid.block1"] = tokens
    found["mid.last_block"] = tokens
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
