from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import VOCABULARY, write_encoder, write_masked_language_model, write_tokenizer

from sparse_encoder import SparseEncoder, SparseEncoderModelCardData
from sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling, Transformer
from sparse_encoder.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked_language_model(tmp_path_factory.mktemp("splade"))


def card_of(model: SparseEncoder, target: Path) -> ModelCard:
    model.save_pretrained(str(target))
    return ModelCard.load(target / "README.md")


def test_front_matter_is_what_the_hub_reads(folder: Path, tmp_path: Path) -> None:
    data = SparseEncoderModelCardData(
        language="en",
        license="apache-2.0",
        model_name="Rain search",
        model_id="me/rain",
        train_datasets=[{"name": "Rain", "id": "me/rain-pairs"}, {"name": "Private"}],
        eval_datasets=[{"id": "me/rain-test"}],
        tags=["weather"],
    )
    card = card_of(SparseEncoder(str(folder), device="cpu", model_card_data=data), tmp_path / "saved")
    assert card.data.language == ["en"]
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "sparse-encoder"
    assert card.data.pipeline_tag == "feature-extraction"
    assert card.data.datasets == ["me/rain-pairs"]
    assert card.data.tags == ["weather", "splade"]
    assert card.text.startswith("\n# Rain search")
    assert "- **Training datasets:** [Rain](https://huggingface.co/datasets/me/rain-pairs), Private" in card.text
    assert "- **Evaluation datasets:** [me/rain-test](https://huggingface.co/datasets/me/rain-test)" in card.text


def test_what_is_not_known_is_not_said(folder: Path, tmp_path: Path) -> None:
    card = card_of(SparseEncoder(str(folder), device="cpu"), tmp_path / "saved")
    front = card.data.to_dict()
    assert set(front) == {"library_name", "tags", "pipeline_tag"}
    assert front["tags"] == ["sentence-transformers", "sparse-encoder", "sparse", "splade"]
    assert "None" not in card.text.split("### Architecture")[0]
    assert str(tmp_path) not in card.text
    assert str(folder) not in card.text


def test_facts_of_the_model(folder: Path, tmp_path: Path) -> None:
    model = SparseEncoder(
        str(folder), device="cpu", prompts={"query": "q: "}, similarity_fn_name="cosine", max_active_dims=20
    )
    text = card_of(model, tmp_path / "saved").text
    for line in (
        "- **Model type:** SPLADE Sparse Encoder",
        "- **Maximum sequence length:** 64 tokens",
        f"- **Output dimensionality:** {len(VOCABULARY)} dimensions",
        "- **Active dimensions:** at most 20",
        "- **Similarity function:** Cosine Similarity",
        "- **Prompts:** query `'q: '`",
    ):
        assert line in text.splitlines()
    assert str(model) in text


def test_kinds_of_model(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    static = SparseStaticEmbedding(Tokenizer.from_pretrained(tmp_path))
    documents = [Transformer(str(folder), transformer_task="fill-mask"), SpladePooling()]
    router = SparseEncoder(modules=[Router.for_query_document([static], documents)], device="cpu")
    auto_encoder = SparseEncoder(str(write_encoder(tmp_path / "plain")), device="cpu")
    for model, kind, tags in [
        (router, "Asymmetric Inference-free SPLADE Sparse Encoder", ["asymmetric", "inference-free", "splade"]),
        (auto_encoder, "CSR Sparse Encoder", ["csr"]),
    ]:
        card = card_of(model, tmp_path / kind)
        assert f"- **Model type:** {kind}" in card.text.splitlines()
        assert card.data.tags[3:] == tags


@pytest.mark.parametrize("build", ["splade", "auto-encoder"])
def test_the_usage_code_runs(folder: Path, tmp_path: Path, build: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder if build == "splade" else write_encoder(tmp_path / "plain")
    model = SparseEncoder(str(source), device="cpu", model_card_data=SparseEncoderModelCardData(model_id="me/model"))
    text = card_of(model, tmp_path / "saved").text
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert 'SparseEncoder("me/model")' in code
    exec(code.replace("me/model", str(tmp_path / "saved")), {})
    out = capsys.readouterr().out
    assert f"torch.Size([1, {model.get_embedding_dimension()}])" in out
    assert ("[('" in out) == (build == "splade")


def test_a_readme_is_kept_until_the_model_is_trained(folder: Path, tmp_path: Path) -> None:
    SparseEncoder(str(folder), device="cpu").save_pretrained(str(tmp_path / "first"))
    readme = tmp_path / "first" / "README.md"
    own = readme.read_text() + "\nWritten by hand.\n"
    readme.write_text(own)
    model = SparseEncoder(str(tmp_path / "first"), device="cpu")
    model.save_pretrained(str(tmp_path / "second"))
    assert (tmp_path / "second" / "README.md").read_text() == own
    model.save_pretrained(str(tmp_path / "third"), model_name="me/model")
    named = own.replace('"sparse_encoder_model_id"', '"me/model"')
    assert named != own
    assert (tmp_path / "third" / "README.md").read_text() == named
    model.model_card_data.add_tags(["generated_from_trainer", "dataset_size:40"])
    card = card_of(model, tmp_path / "fourth")
    assert "Written by hand" not in card.text
    assert "dataset_size:40" in card.data.tags


def test_the_base_model_is_named_when_it_is_on_the_hub(folder: Path, tmp_path: Path) -> None:
    model = SparseEncoder(str(folder), device="cpu")
    model.model_card_data.set_base_model("me/base", revision="c" * 40)
    card = card_of(model, tmp_path / "saved")
    assert card.data.base_model == "me/base"
    assert card.text.startswith("\n# SPLADE Sparse Encoder based on me/base")
    assert f"`me/base` at revision `{'c' * 40}`" in card.text


def test_setters() -> None:
    card = SparseEncoderModelCardData()
    card.set_language(["en", "de"])
    card.set_license("mit")
    card.set_model_id("me/model")
    card.add_tags("one")
    card.add_tags(["one", "two"])
    card.add_train_datasets(["me/a", "me/a"])
    card.add_train_datasets(["me/a"])
    assert (card.language, card.license, card.model_id) == (["en", "de"], "mit", "me/model")
    assert card.tags[3:] == ["one", "two"]
    assert card.train_datasets == [{"id": "me/a"}]


@pytest.mark.parametrize("dataset", [{}, {"path": "x"}, "me/data"])
def test_a_dataset_needs_a_name_or_an_id(dataset: object) -> None:
    with pytest.raises(ValueError, match="a dataset must be"):
        SparseEncoderModelCardData(train_datasets=[dataset])  # type: ignore[list-item]


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=()))))
@settings(deadline=None)
def test_any_text_survives_the_front_matter(texts: list[str]) -> None:
    card = SparseEncoderModelCardData(model_name="".join(texts) or None)
    card.set_widget_examples([{"text": text} for text in [*texts, "\n---\n- a: b", "key: 'value'"]])
    card.set_evaluation_metrics(object(), {"x": 1.0})
    read = ModelCard(f"---\n{card.to_yaml()}\n---\n\n# Title\n---\n")
    assert read.data.widget == card.widget
    assert [each.metric_value for each in read.data.eval_results] == [1.0]
    assert read.text == "\n# Title\n---\n"


def test_a_card_tells_no_training_of_a_model_that_was_not_trained(folder: Path, tmp_path: Path) -> None:
    text = card_of(SparseEncoder(str(folder), device="cpu"), tmp_path / "saved").text
    for part in ("## Training", "## Evaluation", "### Environment", "## Citation"):
        assert part not in text


def test_the_base_model_is_that_of_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "c" * 40
    snapshot = write_masked_language_model(tmp_path / commit)
    with monkeypatch.context() as patch:
        for room in ("modules.transformer_files", "backbone.loading.origin"):
            patch.setattr(f"sparse_encoder.{room}.fetch_model_folder", lambda name, **options: snapshot)
        parts = [Transformer("me/base", transformer_task="fill-mask"), SpladePooling()]
    model = SparseEncoder(modules=parts, device="cpu")
    card = card_of(model, tmp_path / "saved")
    assert card.data.base_model == "me/base"
    assert f"- **Base model:** `me/base` at revision `{commit}`" in card.text
    assert Transformer(str(snapshot), transformer_task="fill-mask").origin is None
    assert SparseEncoder(str(tmp_path / "saved"), device="cpu").model_card_data.base_model is None


def test_no_folder_is_named_as_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_masked_language_model(tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("~/model", "model", str(tmp_path / "model")):
        assert SparseEncoder(name, device="cpu").model_card_data.base_model is None
        assert Transformer(name, transformer_task="fill-mask").origin is None
