"""BENDR."""

import torch
import torch.nn.functional as F
from golden_harness import recorded

from neurofm.published.bendr import contrast, drawn_steps, evaluation_mask

MODELS = ("BENDR (convolutional encoder + contextualizer)",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    last = f"blocks.{len(model.blocks) - 1}"
    paths = {"mid.conv_stage1": "stages.0", "mid.layer1": "blocks.0", "mid.last_layer": last}
    with recorded(model, paths) as seen:
        steps = model.encode(inputs["x"])
        contexts = model.contextualise(steps)
        for name in ("mid.layer1", "mid.last_layer"):
            seen[name] = seen[name][:, 0].transpose(0, 1)
    masked = model.hide(steps, inputs["mask_t"], inputs["mask_c"])
    found = seen | {
        "mid.conditioned": model.condition(steps).transpose(0, 1),
        "output.encodings": steps,
        "output.contexts": contexts,
        "output.contexts_masked": model.contextualise(masked),
    }
    if model.position is not None:
        found["mid.relative_position"] = F.gelu(model.position(steps))
    if "negative_draw" in inputs and model.config.start is not None:
        found |= contrastive(model, steps, fixture["constructor"]["contrastive"], inputs)
    return found


def contrastive(model, steps, options, inputs):
    where = evaluation_mask(*steps.shape[::2], options["mask_rate"], options["mask_span"])
    hidden = model.hide(steps, where)
    contexts = model.contextualise(hidden)[..., 1:]
    # the original draws from steps that are hidden already
    others = drawn_steps(hidden, inputs["negative_draw"])
    scores = contrast(steps, contexts, others, options["temp"])
    entropy = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64))
    return {
        "output.contrastive_logits": scores,
        "output.contrastive_mask": where,
        "loss.contrastive_cross_entropy": entropy,
        "loss.contrastive_total": entropy + options["enc_feat_l2"] * hidden.square().mean(),
    }
