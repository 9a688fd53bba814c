"""A linear chain in the pipeline goes through the tokens that it learnt."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from token_classification_helpers import LABELS, config, tagger, tokenizer

from sparse_encoder.backbone.families import read_config
from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.token_classification import (
    DataCollatorForTokenClassification,
    TokenClassificationModel,
    TokenClassificationPipeline,
    tokenize_and_align_labels,
)

WORDS = ["Sylvain", "zoe", "works", "at", "a", "."]


def chained(links: str, spread: float = 2.0) -> TokenClassificationModel:
    """Make a tagger whose chain says much."""
    hf_config = {**config(), "id2label": dict(enumerate(LABELS)), "use_crf": True, "crf_links": links}
    torch.manual_seed(1)
    model = TokenClassificationModel(read_config(hf_config), hf_config)
    model.post_init()
    assert model.head.crf is not None
    for parameter in model.head.crf.parameters():
        torch.nn.init.normal_(parameter, std=spread)
    return model.eval()


def sentences(count: int, most: int = 4) -> list[list[str]]:
    draw = random.Random(0)
    return [[draw.choice(WORDS) for _ in range(draw.randint(1, most))] for _ in range(count)]


@pytest.mark.parametrize("links", ["first", "all"])
def test_words_have_the_likeliest_sequence_over_the_links(links: str) -> None:
    model, own = chained(links), tokenizer(model_max_length=16)
    rows = sentences(60)
    found = TokenClassificationPipeline(model, own).label_words(rows)
    batch = own.encode_windows(rows, is_split_into_words=True)
    independent = 0
    for row, words in enumerate(batch.word_ids):
        begins = [word is not None and words[place - 1] != word for place, word in enumerate(words)]
        content = [word is not None for word in words]
        mask = torch.tensor([begins if links == "first" else content])
        ids = torch.tensor([batch.input_ids[row]])
        path = iter(model.decode(ids, torch.ones_like(ids), chain_mask=mask)[0])
        labels = [LABELS[next(path)] if link else None for link in mask[0].tolist()]
        expected = [label for label, begin in zip(labels, begins, strict=True) if begin]
        assert found[row] == expected
        single = model(ids, torch.ones_like(ids)).logits[0].argmax(-1)[torch.tensor(begins)].tolist()
        independent += [LABELS[label] for label in single] != expected
    assert independent > 5  # or the chain would say nothing


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_scores_are_marginals_over_first_tokens(strategy: str) -> None:
    model, own = chained("first"), tokenizer(model_max_length=16)
    tagging = TokenClassificationPipeline(model, own, aggregation_strategy=strategy, ignore_labels=[])
    text = "zoe Sylvain works at Sylvain"
    encoding = own.encode_windows([text]).encodings[0]
    words = encoding.word_ids
    begins = [word is not None and words[place - 1] != word for place, word in enumerate(words)]
    ids = torch.tensor([encoding.ids])
    scores = model(ids, torch.ones_like(ids), chain_mask=torch.tensor([begins])).logits[0].detach().exp()
    best = [scores[place].max(-1) for place, begin in enumerate(begins) if begin]
    found = tagging(text)
    if strategy == "none":
        assert len(found) == sum(word is not None for word in words)
        first = [each for each in found if begins[each["index"]]]
        assert [each["entity"] for each in first] == [LABELS[int(each.indices)] for each in best]
        assert [each["score"] for each in first] == pytest.approx([float(each.values) for each in best], abs=1e-6)
        before = None
        for each in found:
            if not begins[each["index"]]:
                assert before is not None
                assert each["entity"] == before["entity"].replace("B-", "I-")
                assert each["score"] == before["score"]
            before = each
    else:
        place = 0
        for each in found:  # no group begins or ends inside a word
            count = len(text[each["start"] : each["end"]].split())
            own_scores = [float(one.values) for one in best[place : place + count]]
            if strategy != "simple":  # simple counts a word once for each of its tokens
                assert each["score"] == pytest.approx(sum(own_scores) / count, abs=1e-6)
            assert text[: each["start"]].split() == text.split()[:place]
            place += count
        assert place == 5


def test_a_chain_that_learnt_first_tokens_is_right_in_the_pipeline() -> None:
    own = tokenizer(model_max_length=16)
    rows = {
        "tokens": [["Sylvain", "works", "at", "zoe"], ["a", "Sylvain", "zoe", "."], ["zoe", "zoe", "Sylvain"]],
        "ner_tags": [["B-PER", "O", "O", "B-LOC"], ["O", "B-PER", "I-PER", "O"], ["B-LOC", "B-LOC", "B-PER"]],
    }
    data = tokenize_and_align_labels(rows, own, label_names=LABELS, strategy="first")
    batch = DataCollatorForTokenClassification(own)(
        [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    )
    model = chained("first", spread=0.1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**batch).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
    assert TokenClassificationPipeline(model, own).label_words(rows["tokens"]) == rows["ner_tags"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_first_token_of_a_window_that_goes_on_with_a_word_is_no_link(side: str) -> None:
    model = chained("first")
    seen: list[tuple[list[int], list[bool]]] = []
    plain = model.forward

    def spying(**features: torch.Tensor) -> object:
        for ids, mask in zip(features["input_ids"].tolist(), features["chain_mask"].tolist(), strict=True):
            seen.append((ids, mask))
        return plain(**features)

    model.forward = spying  # type: ignore[assignment, method-assign]
    own = tokenizer(model_max_length=6, truncation_side=side)
    TokenClassificationPipeline(model, own, stride=1)("sylvain works sylvain sylvain zoe sylvain at sylvain")
    assert len(seen) > 3
    for ids, mask in seen:
        assert mask == [token in (4, 5, 8, 9, 10, 11) for token in ids]  # neither ##lva nor ##in, nor special ones
    assert any(ids[1] in (6, 7) for ids, _ in seen)


def test_the_links_are_saved(tmp_path: Path) -> None:
    chained("first").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["crf_links"] == "first"
    assert TokenClassificationModel.from_pretrained(tmp_path).crf_links == "first"
    assert tagger(use_crf=True).crf_links == "all"
    assert "crf_links" not in tagger().hf_config
    with pytest.raises(ConfigError, match=r"crf_links must be one of \['all', 'first'\], got 'last'"):
        chained("last")
    with pytest.raises(ValueError, match="crf_links must be one of"):
        TokenClassificationModel.from_backbone(tagger(), id2label=LABELS, use_crf=True, crf_links="last")
    assert (
        TokenClassificationModel.from_backbone(tagger(), id2label=LABELS, use_crf=True, crf_links="first").hf_config[
            "crf_links"
        ]
        == "first"
    )
