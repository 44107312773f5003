"""LaBraM: the encoder fine-tuned, and pretrained on masked codes."""

import torch.nn.functional as F
from golden_harness import recorded

MODELS = ("LaBraM encoder (fine-tuning form)", "LaBraM masked code modelling")


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    x, names = inputs["x"], inputs["input_chans"]
    found = {"mid.patch_embed": model.embed(x)}
    last = f"blocks.{len(model.blocks) - 1}"
    hide = inputs.get("mask")
    with recorded(model, {"mid.block1": "blocks.0", "mid.last_block": last}) as seen:
        out = model(x, names, hide)
        found |= {name: value[:, 0] for name, value in seen.items()}
    tokens = found["mid.patch_embed"]
    if hide is not None:
        tokens = tokens.masked_fill(hide[..., None], 0) + hide[..., None] * model.mask_token
    found["mid.tokens_in"] = model.place(tokens, names, x.shape[2])
    if hide is None:
        found["output.logits"] = out
        found["output.features"] = model.pool(found["mid.last_block"])
        found["output.all_tokens"] = model.norm(found["mid.last_block"])
        return found
    found["mid.norm"] = model.norm(found["mid.last_block"])
    labels = inputs["code_labels"]
    for name, where, scores in (
        ("masked", hide, out),
        ("complement", ~hide, model(x, names, ~hide)),
    ):
        found[f"output.logits_{name}"] = scores[where]
        found[f"loss.ce_{name}"] = F.cross_entropy(scores[where], labels[where])
    found["loss.total"] = found["loss.ce_masked"] + found["loss.ce_complement"]
    return found
