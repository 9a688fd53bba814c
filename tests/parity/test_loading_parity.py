"""What transformers says of a checkpoint is what is said here, and what it writes is loaded here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, batch
from loading_helpers import BIAS, BIAS_COPY, DECODER, DENSE, WORDS, change, renamed
from torch import Tensor, nn

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel, PretrainedModel, load_sharded_checkpoint
from sparse_encoder.checkpoint import CheckpointError

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:the weights of:UserWarning")
BERT = {**TINY_CONFIGS["bert"], "vocab_size": 17}
KNOWN = sorted(name for name in TINY_CONFIGS if name in transformers.models.auto.configuration_auto.CONFIG_MAPPING)


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def config_of(values: dict[str, Any], *, tied: bool) -> Any:  # noqa: ANN401 - of the peer
    return transformers.AutoConfig.for_model(**{**values, "tie_word_embeddings": tied})


def peer(kind: str, *, tied: bool = True) -> Any:  # noqa: ANN401
    """Return a model of the peer whose weights all make a difference."""
    torch.manual_seed(7)
    config = config_of(BERT, tied=tied)
    model = getattr(transformers, kind)(config, **({"add_pooling_layer": False} if kind == "BertModel" else {})).eval()
    randomise(model)
    return model


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))


def sets_of(info: Any) -> dict[str, set[Any]]:  # noqa: ANN401 - a mapping, with tuples in it
    mismatched = {(name, tuple(stored), tuple(own)) for name, stored, own in info["mismatched_keys"]}
    return {
        "missing": set(info["missing_keys"]),
        "unexpected": set(info["unexpected_keys"]),
        "mismatched": mismatched,
        "errors": set(info["error_msgs"]),
    }


def both(
    kind: type[PretrainedModel], folder: Path, options: dict[str, Any] | None = None
) -> tuple[dict[str, set[Any]], dict[str, set[Any]]]:
    """Load with the peer and here; returns what both say."""
    name, extra = (
        ("BertForMaskedLM", {}) if kind is MaskedLanguageModel else ("BertModel", {"add_pooling_layer": False})
    )
    _, theirs = getattr(transformers, name).from_pretrained(
        folder, output_loading_info=True, **(options or {}), **extra
    )
    _, ours = kind.from_pretrained(folder, output_loading_info=True, **(options or {}))
    return sets_of(ours), sets_of(theirs)


def drop(*names: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: [tensors.pop(name) for name in names]


def put(new: dict[str, Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update(new)


def age(tensors: dict[str, Tensor]) -> None:
    renamed("LayerNorm.weight", "LayerNorm.gamma")(tensors)
    renamed("LayerNorm.bias", "LayerNorm.beta")(tensors)


def copied(tensors: dict[str, Tensor]) -> None:
    tensors.update({DECODER: tensors[WORDS].clone(), BIAS_COPY: tensors[BIAS].clone()})


CHANGES: dict[str, tuple[Callable[[dict[str, Tensor]], object], dict[str, Any]]] = {
    "nothing": (lambda _: None, {}),
    "a bias gone": (drop(DENSE), {}),
    "words gone": (drop(WORDS), {}),
    "decoder's bias gone": (drop(BIAS), {}),
    "a transform gone": (drop("cls.predictions.transform.dense.weight"), {}),
    "names of nobody": (put({"odd.x": torch.zeros(2), "bert.odd": torch.zeros(2), "bert.bert_x": torch.zeros(1)}), {}),
    "a buffer": (put({"bert.embeddings.position_ids": torch.arange(26)[None]}), {}),
    "a pooler": (put({"bert.pooler.dense.weight": torch.zeros(12, 12), "bert.pooler.dense.bias": torch.zeros(12)}), {}),
    "old names": (age, {}),
    "both names of what is tied": (copied, {}),
    "a layer of another shape": (put({DENSE: torch.zeros(7)}), {"ignore_mismatched_sizes": True}),
    "other names": (renamed("bert.", "enc."), {"key_mapping": {r"^enc\.": "bert."}}),
    "other names of layers": (
        renamed("bert.encoder.layer.", "bert.blocks."),
        {"key_mapping": {r"^bert\.blocks\.(\d+)": r"bert.encoder.layer.\1"}},
    ),
    "no prefix": (renamed("bert.", ""), {}),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("kind", [MaskedLanguageModel, EncoderModel])
def test_the_lists_are_those_of_the_peer(kind: type[PretrainedModel], name: str, tmp_path: Path) -> None:
    peer("BertForMaskedLM").save_pretrained(tmp_path)
    by, options = CHANGES[name]
    change(tmp_path, by)
    ours, theirs = both(kind, tmp_path, options)
    assert ours == theirs


@pytest.mark.parametrize("source", ["BertModel", "BertForPreTraining", "BertForMaskedLM"])
@pytest.mark.parametrize("kind", [MaskedLanguageModel, EncoderModel])
def test_both_directions_of_the_prefix(kind: type[PretrainedModel], source: str, tmp_path: Path) -> None:
    peer(source).save_pretrained(tmp_path)
    ours, theirs = both(kind, tmp_path)
    assert ours == theirs


def test_tensors_of_another_shape_in_the_head(tmp_path: Path) -> None:
    peer("BertForMaskedLM").save_pretrained(tmp_path)
    change(tmp_path, put({BIAS: torch.zeros(3), WORDS: torch.zeros(3, 12)}))
    ours, theirs = both(MaskedLanguageModel, tmp_path, {"ignore_mismatched_sizes": True})
    assert ours == theirs
    with pytest.raises(RuntimeError):
        transformers.BertForMaskedLM.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="2 tensors of another shape"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_an_untied_decoder_that_is_missing(tmp_path: Path) -> None:
    peer("BertForMaskedLM", tied=False).save_pretrained(tmp_path)
    assert both(MaskedLanguageModel, tmp_path)[0] == both(MaskedLanguageModel, tmp_path)[1]
    change(tmp_path, drop(DECODER))
    ours, theirs = both(MaskedLanguageModel, tmp_path)
    assert ours == theirs and ours["missing"] == {DECODER}


def test_variants_and_missing_files(tmp_path: Path) -> None:
    model = peer("BertForMaskedLM")
    model.save_pretrained(tmp_path, variant="fp16", max_shard_size="4KB")
    for load, error in ((transformers.BertForMaskedLM, OSError), (MaskedLanguageModel, CheckpointError)):
        with pytest.raises(error, match=r"model\.safetensors"):
            load.from_pretrained(tmp_path)
        with pytest.raises(error, match=r"model\.bf16\.safetensors"):
            load.from_pretrained(tmp_path, variant="bf16")
    ours, theirs = both(MaskedLanguageModel, tmp_path, {"variant": "fp16"})
    assert ours == theirs
    assert torch.equal(
        MaskedLanguageModel.from_pretrained(tmp_path, variant="fp16").head.bias, model.cls.predictions.bias
    )


@pytest.mark.parametrize("in_config", ["float16", None])
@pytest.mark.parametrize("asked", [None, "auto", "float32", torch.bfloat16])
def test_the_dtype_is_that_of_the_peer(asked: Any, in_config: str | None, tmp_path: Path) -> None:  # noqa: ANN401
    peer("BertForMaskedLM").bfloat16().save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    line = '"dtype": "bfloat16"'
    assert line in text
    (tmp_path / "config.json").write_text(text.replace(line, f'"dtype": "{in_config}"' if in_config else '"x": 1'))
    options = {} if asked is None else {"dtype": asked}
    theirs = transformers.BertForMaskedLM.from_pretrained(tmp_path, **options)
    assert MaskedLanguageModel.from_pretrained(tmp_path, **options).dtype == theirs.dtype


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", KNOWN)
def test_shards_that_the_peer_writes_load_and_compute_the_same(name: str, tied: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = config_of(TINY_CONFIGS[name], tied=tied)
    whole = transformers.AutoModelForMaskedLM.from_config(config).eval()
    randomise(whole)
    whole.save_pretrained(tmp_path / "whole", max_shard_size="4KB")
    assert (tmp_path / "whole/model.safetensors.index.json").exists()
    loaded = MaskedLanguageModel.from_pretrained(tmp_path / "whole")
    features = batch(loaded.config.num_token_types, pad=loaded.config.pad_token_id or 0)
    kept = features["attention_mask"].bool()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**features)[kept], whole(**features).logits[kept], rtol=0, atol=2e-5)
    assert (loaded.head.weight is loaded.backbone.embeddings.word.weight) == tied
    again = MaskedLanguageModel.from_config(loaded.hf_config)
    assert load_sharded_checkpoint(again, tmp_path / "whole") == ([], [])
    with torch.no_grad():
        assert torch.equal(again.eval()(**features), loaded(**features))
    base = transformers.AutoModel.from_config(config).eval()
    randomise(base)
    base.save_pretrained(tmp_path / "base", max_shard_size="4KB")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = EncoderModel.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        theirs = base(**features).last_hidden_state
        torch.testing.assert_close(encoder(**features)[kept], theirs[kept], rtol=0, atol=2e-5)


def test_modules_of_the_peer_take_shards_of_the_peer(tmp_path: Path) -> None:
    source, model = peer("BertForMaskedLM"), peer("BertForMaskedLM")
    randomise(model)
    source.save_pretrained(tmp_path, max_shard_size="4KB")
    assert load_sharded_checkpoint(model, tmp_path) == ([], [])  # the peer's own misses the tied names
    assert all(torch.equal(each, model.state_dict()[name]) for name, each in source.state_dict().items())
    trainer_utils = pytest.importorskip("transformers.trainer_utils")
    with pytest.raises(RuntimeError, match="decoder"):
        trainer_utils.load_sharded_checkpoint(model, tmp_path)
