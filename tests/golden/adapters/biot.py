"""BIOT."""

import torch

MODELS = ("BIOT encoder + classifier",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    x = inputs["x"]
    names = torch.arange(x.shape[1])
    tokens = model.embed(x, names)
    first = model.layers[0]
    shifted = model.embed(x, names + fixture.get("channel_offset", 0))
    return {
        "mid.spectrum_channel0": model.spectrum(x)[:, 0].transpose(1, 2),
        "mid.tokens_in": tokens,
        "mid.layer1_attention": first.attention(first.norm_attention(tokens)),
        "mid.transformer_out": model.encode(tokens),
        "output.embedding": model.encode(tokens).mean(1),
        "output.embedding_channel_offset": model.encode(shifted).mean(1),
        "output.logits": model(x, names),
    }
