"""What our models tell of themselves against what those of transformers tell."""

from __future__ import annotations

from typing import Any

import pytest
from backbone_helpers import TINY_CONFIGS, VARIANTS, newest_spelling

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel

transformers = pytest.importorskip("transformers")

CONFIGS = {**TINY_CONFIGS, **VARIANTS}
KINDS = {"AutoModel": EncoderModel, "AutoModelForMaskedLM": MaskedLanguageModel}


def words_under_another_name(peer: Any) -> int:  # noqa: ANN401 - a peer's class
    """Count what the peer does not exclude: it goes by names, and a tied table may be found as the decoder's first."""
    words = peer.get_input_embeddings().weight
    name = next(name for name, each in peer.named_parameters() if each is words)
    return 0 if "embeddings" in name else int(words.numel())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_and_bytes_are_the_same(name: str, kind: str) -> None:
    config = transformers.AutoConfig.for_model(**newest_spelling(CONFIGS[name]))
    peer = getattr(transformers, kind).from_config(config)
    ours = KINDS[kind].from_config(CONFIGS[name])
    unread = [each for part, each in peer.named_parameters() if part.startswith("pooler.")]
    pooler = sum(each.numel() for each in unread)
    untied = CONFIGS[name].get("tie_word_embeddings") is False and kind == "AutoModelForMaskedLM"
    copies = config.vocab_size if untied and ours.family.decoder_bias_copy else 0  # it does not tie this bias then
    for only_trainable in (False, True):
        for exclude in (False, True):
            theirs = peer.num_parameters(only_trainable, exclude) - (words_under_another_name(peer) if exclude else 0)
            assert ours.num_parameters(only_trainable, exclude) == theirs - pooler - copies
    theirs = peer.get_memory_footprint(return_buffers=False)
    assert ours.get_memory_footprint(return_buffers=False) == theirs - 4 * (pooler + copies)


def test_tensors_are_found_as_in_the_peer() -> None:
    peer = transformers.AutoModelForMaskedLM.from_config(transformers.AutoConfig.for_model(**TINY_CONFIGS["bert"]))
    ours = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"])
    names = ("bert.embeddings.word_embeddings.weight", "backbone.embeddings.word.weight")
    assert ours.get_parameter_or_buffer(names[1]).shape == peer.get_parameter_or_buffer(names[0]).shape
    for model in (peer, ours):
        with pytest.raises(AttributeError):
            model.get_parameter_or_buffer("nothing.weight")
    assert ours.can_generate() == peer.can_generate()
