"""Every published model, by the name that its reference fixtures use."""

from __future__ import annotations

from neurofm.published.barista import PUBLISHED_BARISTA
from neurofm.published.bendr import PUBLISHED_BENDR
from neurofm.published.biot import PUBLISHED_BIOT
from neurofm.published.brainomni import PUBLISHED_BRAINOMNI
from neurofm.published.braintokenizer import PUBLISHED_BRAINTOKENIZER
from neurofm.published.cbramod import PUBLISHED_CBRAMOD
from neurofm.published.duin_tasks import PUBLISHED_DUIN_TASKS
from neurofm.published.duin_tokenizer import PUBLISHED_DUIN_TOKENIZER
from neurofm.published.eegpt import PUBLISHED_EEGPT
from neurofm.published.entry import Published
from neurofm.published.ephys_tokenizer import PUBLISHED_EPHYS_TOKENIZER
from neurofm.published.femba import PUBLISHED_FEMBA
from neurofm.published.labram_original import PUBLISHED_LABRAM
from neurofm.published.luna_original import PUBLISHED_LUNA
from neurofm.published.mamba import PUBLISHED_MAMBA
from neurofm.published.meg_gpt_original import PUBLISHED_MEG_GPT
from neurofm.published.reve import PUBLISHED_REVE
from neurofm.published.simpleconv_original import PUBLISHED_SIMPLECONV
from neurofm.published.vqnsp import PUBLISHED_VQNSP

PUBLISHED: dict[str, Published] = {
    **PUBLISHED_BARISTA,
    **PUBLISHED_BENDR,
    **PUBLISHED_BIOT,
    **PUBLISHED_BRAINOMNI,
    **PUBLISHED_BRAINTOKENIZER,
    **PUBLISHED_CBRAMOD,
    **PUBLISHED_DUIN_TASKS,
    **PUBLISHED_DUIN_TOKENIZER,
    **PUBLISHED_EEGPT,
    **PUBLISHED_EPHYS_TOKENIZER,
    **PUBLISHED_FEMBA,
    **PUBLISHED_LABRAM,
    **PUBLISHED_LUNA,
    **PUBLISHED_MAMBA,
    **PUBLISHED_MEG_GPT,
    **PUBLISHED_REVE,
    **PUBLISHED_SIMPLECONV,
    **PUBLISHED_VQNSP,
}
