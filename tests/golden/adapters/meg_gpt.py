"""MEG-GPT: scores of the next code."""

from golden_harness import recorded

from neurofm.published.meg_gpt import next_code_loss

MODELS = ("MEG-GPT",)


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    loss = {"top_k": None, "label_smoothing": 0.0, **fixture["constructor"]["loss"]}
    codes = inputs["tokens"].transpose(1, 2)
    names = sorted(name for name in inputs if name.startswith("label"))
    labels = [inputs[name][:, :-1] for name in names]
    last = len(model.layers) - 1
    paths = {"time": "layers.0.time", "mid.layer1": "layers.0", "mid.last_layer": f"layers.{last}"}
    if mixes := model.layers[0].channels is not None:
        paths["channels"] = "layers.0.channels.attention"
    with recorded(model, paths) as seen:
        scores = model(codes[..., :-1], labels)
    shape, following, n = codes.shape[:2], codes[..., 1:], loss["loss_sequence_length"]
    found = {
        "mid.input_embedding": model.embed(codes[..., :-1], labels).transpose(1, 2),
        "mid.layer1_time_attention": seen["time"].unflatten(0, shape).transpose(1, 2),
        "mid.layer1": seen["mid.layer1"].transpose(1, 2),
        "mid.last_layer": seen["mid.last_layer"].transpose(1, 2),
        "output.logits": scores.transpose(1, 2),
        "loss.cross_entropy": next_code_loss(scores, following, n, loss["label_smoothing"])[None],
    }
    if mixes:
        channels = seen["channels"].unflatten(0, (shape[0], -1))
        found["mid.layer1_channel_attention"] = channels.transpose(1, 2)
    for k in loss["top_k"] or [1]:
        best = scores[..., -n:, :].topk(k, dim=-1).indices
        right = (best == following[..., -n:, None]).any(-1)
        found[f"loss.top_{k}_acc"] = right.float().mean()
    return found
