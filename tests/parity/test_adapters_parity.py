"""Our adapters against those of PEFT: the same logits, and files that both read, both ways."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_helpers import adapted, inputs_of, logits, model_named, randomise_adapters
from backbone_helpers import TINY_CONFIGS, batch, randomise
from model_helpers import mixed_texts, write_masked_language_model
from safetensors.torch import load_file
from torch import Tensor

from sparse_encoder.backbone import EncoderModel, LoraConfig, MaskedLanguageModel
from sparse_encoder.token_classification import TokenClassificationModel

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {"target_modules": ["query", "value"]}),
    "bert, every layer": ("bert", {"target_modules": "all-linear", "use_rslora": True}),
    "bert, an expression": ("bert", {"target_modules": r".*\.layer\.\d\.attention\.self\.(key|query)"}),
    "bert, some layers": ("bert", {"target_modules": ["query"], "layers_to_transform": [0, 2]}),
    "bert, biases": ("bert", {"target_modules": ["query", "output.dense"], "bias": "all"}),
    "bert, biases of layers": ("bert", {"target_modules": ["query", "dense"], "bias": "lora_only"}),
    "bert, modules": ("bert", {"target_modules": ["query"], "modules_to_save": ["cls.predictions.transform"]}),
    "distilbert": ("distilbert", {"target_modules": ["q_lin", "lin1"], "rank_pattern": {"lin1": 4}}),
    "distilbert, modules": ("distilbert", {"target_modules": ["k_lin"], "modules_to_save": ["vocab_transform"]}),
    "modernbert": ("modernbert", {"target_modules": ["Wqkv", "Wi"], "alpha_pattern": {r"layers.1.attn.Wqkv": 9}}),
    "modernbert, modules": ("modernbert", {"target_modules": ["Wo"], "modules_to_save": ["head"]}),
    "roberta": ("roberta", {"target_modules": ["query", "value"]}),
    "albert": ("albert", {"target_modules": ["query", "ffn"]}),
    "mpnet": ("mpnet", {"target_modules": ["attn.q", "attn.v", "o"], "alpha_pattern": {r"layer\.[01]\..*": 5}}),
    "deberta-v2": ("deberta-v2", {"target_modules": ["query_proj", "key_proj"], "rank_pattern": {r"layer\.0\..*": 4}}),
    "bert, what is left out": ("bert", {"target_modules": "all-linear", "exclude_modules": r".*transform.*"}),
    "electra": ("electra", {"target_modules": ["query", "value"], "exclude_modules": ["layer.0.attention.self.query"]}),
}


def logits_of_tokens(model: Any, inputs: dict[str, Tensor]) -> Tensor:  # noqa: ANN401 - ours or a peer's
    with torch.no_grad():
        output = model(**inputs)
    found: Tensor = getattr(output, "logits", output)
    return found[inputs["attention_mask"].bool()]


def assert_same(ours: MaskedLanguageModel, peer: Any) -> None:  # noqa: ANN401 - ours or a peer's
    inputs = inputs_of(ours)
    models = [ours, peer]
    if ours.config.position_kind != "rotary":  # whose angles stay in float32 here or there
        models = [copy.deepcopy(model).double() for model in models]  # nothing is lost to the order of sums
    got, expected = (logits_of_tokens(model, inputs) for model in models)
    scale = expected.abs().max().clamp(min=1)
    torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-6)


def base_folder(folder: Path, name: str) -> Path:
    model_named(name).save_pretrained(folder / "base")
    return folder / "base"


@pytest.mark.parametrize("case", CASES)
def test_peft_loads_ours(case: str, tmp_path: Path) -> None:
    name, options = CASES[case]
    base = base_folder(tmp_path, name)
    ours = MaskedLanguageModel.from_pretrained(base)
    plain = logits(ours)
    ours.add_adapter(LoraConfig(r=2, lora_alpha=3, **options))
    randomise_adapters(ours)
    ours.save_adapter(tmp_path / "adapter")
    peer = peft.PeftModel.from_pretrained(
        transformers.AutoModelForMaskedLM.from_pretrained(base), tmp_path / "adapter"
    ).eval()
    assert_same(ours, peer)
    assert not torch.allclose(logits(ours), plain)
    by_transformers = transformers.AutoModelForMaskedLM.from_pretrained(base)
    by_transformers.load_adapter(str(tmp_path / "adapter"))
    assert_same(ours, by_transformers.eval())


@pytest.mark.parametrize("case", CASES)
def test_ours_loads_what_peft_saves(case: str, tmp_path: Path) -> None:
    name, options = CASES[case]
    base = base_folder(tmp_path, name)
    torch.manual_seed(3)
    peer = peft.get_peft_model(
        transformers.AutoModelForMaskedLM.from_pretrained(base), peft.LoraConfig(r=2, lora_alpha=3, **options)
    ).eval()
    with torch.no_grad():
        for each in peer.parameters():
            if each.requires_grad:
                each.add_(0.3 * torch.randn(each.shape))
    peer.save_pretrained(tmp_path / "adapter")
    ours = MaskedLanguageModel.from_pretrained(base)
    plain = logits(ours)
    ours.load_adapter(tmp_path / "adapter", is_trainable=True)
    assert_same(ours, peer)
    assert not torch.allclose(logits(ours), plain)
    assert ours.num_parameters(only_trainable=True) <= peer.num_parameters(only_trainable=True)
    ours.save_adapter(tmp_path / "again")
    first, second = (load_file(tmp_path / each / "adapter_model.safetensors") for each in ("adapter", "again"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    merged, theirs = ours.merge_and_unload(), peer.merge_and_unload()
    assert_same(merged, theirs)
    merged.save_pretrained(tmp_path / "merged")
    files = {path.name for path in (tmp_path / "merged").iterdir()}
    assert files == {"config.json", "model.safetensors"}
    reloaded = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "merged").eval()
    assert_same(merged, reloaded)


@pytest.mark.parametrize("name", ["bert", "distilbert", "modernbert"])
def test_a_saved_model_with_an_adapter_is_what_transformers_saves(name: str, tmp_path: Path) -> None:
    base = base_folder(tmp_path, name)
    ours = MaskedLanguageModel.from_pretrained(base)
    ours.add_adapter(LoraConfig(r=2, target_modules="all-linear"), "mine")
    randomise_adapters(ours)
    ours.save_pretrained(tmp_path / "ours")
    assert {path.name for path in (tmp_path / "ours").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    peer = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    assert_same(ours, peer)
    state = ours.get_adapter_state_dict()
    theirs = peer.get_adapter_state_dict()
    assert state.keys() == theirs.keys() and all(torch.equal(state[key], theirs[key]) for key in state)
    peer.save_pretrained(tmp_path / "theirs")
    back = MaskedLanguageModel.from_pretrained(tmp_path / "theirs", base_model=base)
    assert torch.equal(logits(back), logits(ours)) and back.active_adapters() == ["default"]
    assert_same(MaskedLanguageModel.from_pretrained(tmp_path / "ours", base_model=base), ours)


def test_a_base_model_takes_the_adapter_of_a_model_with_a_head_and_the_reverse(tmp_path: Path) -> None:
    base = base_folder(tmp_path, "bert")
    peer = transformers.AutoModel.from_pretrained(base)
    adapter = peft.get_peft_model(peer, peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    adapter.save_pretrained(tmp_path / "adapter")
    ours = EncoderModel.from_pretrained(base)
    ours.load_adapter(tmp_path / "adapter")
    masked = MaskedLanguageModel.from_pretrained(base)
    inputs = inputs_of(masked)
    with torch.no_grad():
        expected, got = adapter.eval()(**inputs).last_hidden_state, ours(**inputs)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    ours.save_adapter(tmp_path / "ours")
    with torch.no_grad():
        again = peft.PeftModel.from_pretrained(transformers.AutoModel.from_pretrained(base), tmp_path / "ours").eval()
        torch.testing.assert_close(again(**inputs).last_hidden_state, expected, rtol=0, atol=1e-5)
    with_query = EncoderModel.from_pretrained(base)
    with_query.add_adapter(LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
    with_query.save_adapter(tmp_path / "query")
    masked.load_adapter(tmp_path / "query")
    with torch.no_grad():
        assert torch.equal(masked.backbone(**inputs), with_query(**inputs))


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "roberta"])
def test_the_default_layers_are_written_as_the_peer_does(name: str) -> None:
    ours = model_named(name)
    ours.add_adapter(LoraConfig())
    config = transformers.AutoConfig.for_model(**TINY_CONFIGS[name])
    peer = peft.get_peft_model(transformers.AutoModelForMaskedLM.from_config(config), peft.LoraConfig())
    assert set(ours.peft_config["default"].target_modules) == set(peer.peft_config["default"].target_modules)


def test_names_and_defaults_are_those_of_the_peer() -> None:
    import inspect

    from sentence_transformers.base.peft_mixin import PeftAdapterMixin

    from sparse_encoder import SparseEncoder

    for name in (each for each in vars(PeftAdapterMixin) if not each.startswith(("_", "check", "has"))):
        assert callable(getattr(SparseEncoder, name)) and callable(getattr(MaskedLanguageModel, name)), name
    fields = {each: getattr(LoraConfig(), each) for each in LoraConfig.__dataclass_fields__}
    theirs = peft.LoraConfig()
    assert {each: getattr(theirs, each) for each in fields} == fields
    names = transformers.PreTrainedModel
    for name in ("add_adapter", "set_adapter", "delete_adapter", "get_adapter_state_dict", "load_adapter"):
        ours = list(inspect.signature(getattr(MaskedLanguageModel, name)).parameters)
        assert set(ours) <= set(inspect.signature(getattr(names, name)).parameters)
        assert ours[:3] == list(inspect.signature(getattr(names, name)).parameters)[:3]


def test_switching_is_that_of_transformers(tmp_path: Path) -> None:
    base = base_folder(tmp_path, "bert")
    adapted(adapter="x").save_adapter(tmp_path / "adapter")
    ours = MaskedLanguageModel.from_pretrained(base)
    peer = transformers.AutoModelForMaskedLM.from_pretrained(base)
    told: list[list[Any]] = [[], []]
    for model, kind, said in ((ours, LoraConfig, told[0]), (peer, peft.LoraConfig, told[1])):
        model.add_adapter(kind(r=2, target_modules=["query"]), "a")
        said.append(model.active_adapters())
        model.load_adapter(str(tmp_path / "adapter"), "b")
        said += [model.active_adapters(), any(each.requires_grad for each in model.parameters())]
        model.set_adapter(["a", "b"])
        said += [model.active_adapters(), sum(each.requires_grad for each in model.parameters())]
        model.disable_adapters()
        said += [model.active_adapters(), any(each.requires_grad for each in model.parameters())]
        model.enable_adapters()
        model.delete_adapter("a")
        said.append(model.active_adapters())
        model.delete_adapter("b")
        with pytest.raises(ValueError, match="adapter"):
            model.active_adapters()
    assert told[0] == told[1]


def test_encoders_with_adapters_are_those_of_sentence_transformers(tmp_path: Path) -> None:
    peers = pytest.importorskip("sentence_transformers")
    from sparse_encoder import SparseEncoder

    base, texts = write_masked_language_model(tmp_path / "base"), mixed_texts(4)
    ours = SparseEncoder(str(base), device="cpu")
    ours.add_adapter(LoraConfig(r=2, lora_alpha=6))
    randomise_adapters(ours)
    ours.save_pretrained(str(tmp_path / "ours"))
    peer = peers.SparseEncoder(str(tmp_path / "ours"), device="cpu")
    assert peer.active_adapters() == ["default"]
    expected = peer.encode(texts, convert_to_sparse_tensor=False)
    got = ours.encode(texts, convert_to_tensor=True, convert_to_sparse_tensor=False)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(got, SparseEncoder(str(base), device="cpu").encode(texts).to_dense())
    peer.save_pretrained(str(tmp_path / "theirs"))
    assert {path.name for path in (tmp_path / "theirs").iterdir()} - {"README.md"} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    back = SparseEncoder(str(tmp_path / "theirs"), device="cpu", model_kwargs={"base_model": str(base)})
    assert torch.equal(back.encode(texts).to_dense(), got)


TAGGERS = {"bert": ["query"], "deberta-v2": ["query_proj"], "distilbert": ["q_lin"], "modernbert": ["Wqkv"]}


@pytest.mark.parametrize("name", TAGGERS)
def test_adapters_of_taggers_have_their_own_classifier(name: str, tmp_path: Path) -> None:
    def peer() -> Any:  # noqa: ANN401 - a peer's class
        return transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "base")

    config = transformers.AutoConfig.for_model(**TINY_CONFIGS[name], num_labels=3)
    base = transformers.AutoModelForTokenClassification.from_config(config)
    randomise(base)
    base.save_pretrained(tmp_path / "base")
    options = peft.LoraConfig(r=2, target_modules=TAGGERS[name], task_type="TOKEN_CLS", init_lora_weights=False)
    theirs = peft.get_peft_model(base, options).eval()
    with torch.no_grad():
        for each in theirs.parameters():
            if each.requires_grad:
                each.add_(0.3 * torch.randn(each.shape))
    theirs.save_pretrained(tmp_path / "adapter")
    ours = TokenClassificationModel.from_pretrained(tmp_path / "base")
    ours.load_adapter(tmp_path / "adapter")
    inputs = batch(ours.config.num_token_types, pad=ours.config.pad_token_id or 0)
    expected = logits_of_tokens(theirs, inputs)
    torch.testing.assert_close(logits_of_tokens(ours, inputs), expected, rtol=0, atol=1e-5)
    ours.save_adapter(tmp_path / "again")
    again = peft.PeftModel.from_pretrained(peer(), tmp_path / "again").eval()
    torch.testing.assert_close(logits_of_tokens(again, inputs), expected, rtol=0, atol=1e-5)
