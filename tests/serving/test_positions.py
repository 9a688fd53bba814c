"""How many tokens a checkpoint has positions for, read without its model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparse_encoder.backbone.families import DECODER_FAMILIES, FAMILIES, SEQ2SEQ_FAMILIES, Family
from sparse_encoder.serving.text_settings import positions_of

ALL = {**FAMILIES, **DECODER_FAMILIES, **SEQ2SEQ_FAMILIES}
COUNT, PADDING = 40, 3


@pytest.mark.parametrize("family", ALL.values(), ids=ALL)
def test_positions_before_the_first_token_are_left_out_where_the_family_counts_behind_padding(
    family: Family, tmp_path: Path
) -> None:
    values = {"model_type": family.model_type, "max_position_embeddings": COUNT, "pad_token_id": PADDING}
    (tmp_path / "config.json").write_text(json.dumps(values))
    reserved = PADDING + 1 if family.defaults.position_kind == "after_padding" else 0
    assert positions_of(tmp_path) == COUNT - reserved


def test_some_families_count_behind_padding() -> None:
    kinds = {name: family.defaults.position_kind for name, family in ALL.items()}
    assert (kinds["roberta"], kinds["mpnet"], kinds["bert"]) == ("after_padding", "after_padding", "absolute")
