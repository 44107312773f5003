"""LaBraM's tokenizer."""

from golden_harness import recorded

MODELS = ("LaBraM VQNSP tokenizer",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    names = inputs["input_chans"]
    patches = inputs["x"].unflatten(-1, (-1, model.encoder.config.patch_len))
    found = {}
    paths = {
        "block": "encoder.blocks.0",
        "mid.to_quantiser": "to_code",
        "mid.decoder_patch_embed": "decoder.convs",
    }
    with recorded(model, paths) as seen:
        terms = model(patches, names)
        found["mid.encoder_block1"] = seen.pop("block")[:, 0]
        found |= seen
    codes = model.quantise(patches, names)
    grid = codes.content.unflatten(1, patches.shape[1:3])
    guess = model.decode(grid, names)
    features = model.decoder.norm(model.decoder.encode(grid, names)[:, 1:])
    total = sum(terms.values())
    return found | {
        "mid.encoder_features": model.features(patches, names),
        "mid.quantised": grid.permute(0, 3, 1, 2),
        "mid.decoder_features": features,
        "output.codes": codes.codes.flatten(),
        "output.tokens": codes.codes,
        "output.amplitude": guess.amplitude,
        "output.angle": guess.phase,
        "loss.quant_loss": terms["commitment"],
        "loss.rec_loss": terms["amplitude"],
        "loss.rec_angle_loss": terms["phase"],
        "loss.total": total,
        "loss.total_logged": total,
    }
