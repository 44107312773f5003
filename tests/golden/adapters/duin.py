"""Du-IN: the tokenizer, masked codes, and the classifier."""

import torch.nn.functional as F
from golden_harness import recorded

MODELS = ("Du-IN VQ-VAE", "Du-IN masked code prediction", "Du-IN classifier")


def run(entry, fixture, weights, inputs):
    model = entry.load(fixture["constructor"], weights)
    signal, subject = inputs["x"].transpose(1, 2), inputs["subject_onehot"].argmax(-1)
    found = {"mid.tokens": model.encoder.tokens(signal, subject)}
    if "code_labels" in inputs:
        return found | masked(model, signal, subject, inputs, fixture["constructor"]["mask_ratio"])
    found["mid.encoder"] = model.encoder(signal, subject)
    if "label" in inputs:
        scores = model(signal, subject)
        return found | {
            "output.probabilities": scores,
            "loss.cls": F.cross_entropy(scores, inputs["label"]),
            "loss.contrastive": model.contrast(found["mid.encoder"], inputs["label"]),
        }
    return found | tokenizer(model, signal, subject, inputs["channel_mask"])


def masked(model, signal, subject, inputs, ratio):
    noise = inputs["mask_noise"]
    rank = noise.argsort(-1).argsort(-1)
    hide = rank >= int(noise.shape[-1] * (1 - ratio))
    scores = model(signal, subject, hide)
    labels = inputs["code_labels"]
    return {
        "mid.encoder_first_pass": model.encode(model.encoder.tokens(signal, subject), hide),
        "output.code_scores": scores,
        "output.mask": hide,
        "loss.ce": F.cross_entropy(scores.flatten(0, 1), labels.flatten()),
    }


def tokenizer(model, signal, subject, counts):
    paths = {
        "mid.subject_block": "encoder.subjects",
        "mid.block1": "encoder.stack.blocks.0",
        "mid.quantised": "from_code",
        "mid.decoder": "decoder",
    }
    with recorded(model, paths) as seen:
        quantised = model.quantise(signal, subject)
        guess = model.reconstruct(quantised.content, subject)
    terms = model.terms(quantised, guess, signal, counts)
    return seen | {
        "mid.subject_block": seen["mid.subject_block"].transpose(1, 2),
        "mid.block1": seen["mid.block1"][:, 0],
        "mid.regression": model.decode(quantised.content).transpose(1, 2),
        "output.reconstruction": guess.transpose(1, 2),
        "output.codes": quantised.codes,
        "loss.total": terms.total,
        "loss.vq": terms.commitment,
        "loss.rgs": terms.reconstruction,
    }
