"""BrainTokenizer."""

import torch

from neurofm.tokenizers.brain_parts import cut, reconstruction_loss

MODELS = ("BrainTokenizer",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    length = model.config.window_len
    geometry, kind = inputs["pos"], inputs["sensor_type"]
    sensors = model.sensors(geometry, kind)
    windows = cut(inputs["x"], length)
    full = model.reconstruct(windows, sensors)
    latents = model.sources(windows, sensors)
    over = cut(inputs["x"], length, fixture["overlap_ratio_of_tokens"])
    tokens = model.quantise(model.sources(over, sensors))
    features = model.encoder(windows.flatten(0, 2)[:, None])
    return {
        "mid.sensor_embedding": sensors,
        "mid.seanet_features": features,
        "mid.latents": latents,
        "output.reconstruction": full.signal,
        "output.target": full.target,
        "mid.quantised": full.quantised.content,
        "output.codes": full.quantised.codes,
        "loss.commitment_full": model.quantise(latents).loss,
        "output.tokens_overlap": tokens.content.flatten(2, 3),
        "output.codes_overlap": tokens.codes.flatten(2, 3),
        **training_forward(model, windows, sensors, fixture, inputs),
    }


def training_forward(model, windows, sensors, fixture, inputs):
    """Channels permuted, the first withheld, noise on the others."""
    order, n_withheld = inputs["loss_permutation"], fixture["n_masked_channels_in_loss"]
    windows, sensors = windows[:, order], sensors[:, order]
    present = torch.ones(sensors.shape[:2], dtype=torch.bool)
    present[:, :n_withheld] = False
    noise = torch.zeros_like(windows)
    noise[:, n_withheld:] = inputs["loss_noise"]
    found = model.reconstruct(windows, sensors, present=present, noise=noise)
    terms = reconstruction_loss(found)
    return {
        "loss.loss": terms["total"],
        "loss.time_loss": terms["time"],
        "loss.pcc": terms["correlation"],
        "loss.amp_loss": terms["amplitude"],
        "loss.phase_loss": terms["phase"],
        "loss.commitment_loss": terms["commitment"],
        "output.loss_codes": found.quantised.codes,
    }
