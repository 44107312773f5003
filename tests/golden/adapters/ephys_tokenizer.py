"""EphysTokenizer, in evaluation and in training."""

import torch.nn.functional as F
from golden_harness import recorded

MODELS = ("EphysTokenizer",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    signal = inputs["x"].transpose(1, 2)
    found = {}
    with recorded(model, {"mid.encoder": "encoder", "mid.token_norm": "choice.norm"}) as seen:
        found["output.reconstruction"] = model(signal).transpose(1, 2)
        found |= seen
    found["output.codes"] = model.choose(signal).codes.transpose(1, 2)
    found["loss.mse"] = F.mse_loss(found["output.reconstruction"], inputs["x"])
    model.train()
    found["output.train_mode_reconstruction"] = model(signal).transpose(1, 2)
    found["output.train_mode_weights"] = model.choose(signal).weights.transpose(1, 2)
    found["loss.train_mode_mse"] = F.mse_loss(
        found["output.train_mode_reconstruction"], inputs["x"]
    )
    return found
