"""LUNA: reconstruction and classification.

The fixtures hold batches of several layouts, which the original mixes; so does the part here.
"""

from golden_harness import recorded

from neurofm.published.luna_parts import terms

MODELS = ("LUNA",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    model.config = model.config.model_copy(update={"mixes_windows": True})
    signal, position, hide = inputs["x"], inputs["channel_locations"], inputs.get("mask")
    jitter, names = inputs.get("location_noise"), inputs.get("channel_indices")
    patches = model.patches(signal)
    place = model.locate(position, jitter)
    tokens = model.tokens(signal, place, hide)
    scores = model.unify.weights(tokens)
    paths = {"mid.queries": "unify", "mid.block1": "blocks.0", "mid.final_norm": "norm"}
    with recorded(model, paths) as seen:
        out = model(signal, position, names=names, hide=hide, jitter=jitter)
    found = seen | {
        "mid.patch_embed": model.embed(patches).flatten(1, 2),
        "mid.frequency_embed": model.spectrum(patches).flatten(1, 2),
        "mid.location_embed": place,
        "mid.tokens_in": tokens,
        "mid.attention_scores": scores,
        "mid.block1": seen["mid.block1"][:, 0],
    }
    if hide is None:
        return found | {"output.logits": out}
    loss = terms(out, signal, hide, scores)
    return found | {
        "output.reconstruction": out,
        "loss.masked_smooth_l1": loss.hidden,
        "loss.visible_smooth_l1": loss.visible,
        "loss.query_specialisation": loss.overlap,
        "loss.total": loss.total,
    }
