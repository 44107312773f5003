"""Every tokenizer that ``neurofm tokenize`` trains, by the name that configs use.

Each config has ``build_parts(contract)``, which gives a `Coder`.
"""

from __future__ import annotations

from neurofm.tokenizers.brain import BrainTokenizerConfig

TRAINABLE = {"brain_tokenizer": BrainTokenizerConfig}

TrainableConfig = BrainTokenizerConfig
