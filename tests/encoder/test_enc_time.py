"""Patches have an order, and no other time than that."""

from dataclasses import replace

import pytest
import torch
from encoder_cases import COVER, build_encoder, differ, encode, every_encoder, make_windows


@every_encoder
def test_the_order_of_patches_matters(parts):
    encoder, batch = build_encoder(parts), make_windows()
    order = torch.tensor([0, 3, 2, 1, 4])
    swapped = replace(batch, signal=batch.signal.unflatten(-1, (5, 20))[:, :, order].flatten(-2))
    plain = encode(encoder, batch).content
    assert differ(encode(encoder, swapped).content, plain[:, :, order], atol=1e-2)


RELATIVE = [p for p in COVER if p[2] not in {"linear", "waves"}]  # those number their patches


@pytest.mark.parametrize("parts", RELATIVE, ids="-".join)
def test_only_differences_in_time_matter(parts):
    encoder, batch = build_encoder(parts).eval(), make_windows()
    with torch.no_grad():
        grid = encoder.tokenizer(batch)
        early, late = (
            encoder.backbone(
                grid.evolve(
                    content=pad_patches(grid.content, lead), present=pad_patches(grid.present, lead)
                )
            )
            for lead in (0, 4)  # whole groups of a pyramid
        )
    torch.testing.assert_close(
        early.content[:, :, :5], late.content[:, :, 4:], atol=1e-5, rtol=1e-5
    )
    assert not late.content[:, :, :4].any()


def pad_patches(values, lead):
    padded = values.new_zeros(*values.shape[:2], 9, *values.shape[3:])
    padded[:, :, lead : lead + 5] = values
    return padded


def test_windows_of_another_number_of_patches_can_be_encoded():
    assert encode(build_encoder(), make_windows(n_times=60)).content.shape == (2, 5, 3, 32)
