"""Backbones: a grid of tokens in, a grid of encoded tokens out."""
