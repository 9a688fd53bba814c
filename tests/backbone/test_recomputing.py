"""Activations computed twice: the same gradients, fewer activations, and gradients behind frozen embeddings."""

from __future__ import annotations

import pickle
from copy import deepcopy

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, batch, randomise
from torch import Tensor, nn

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel


def model_of(name: str = "bert") -> MaskedLanguageModel:
    model = MaskedLanguageModel.from_config(TINY_CONFIGS[name]).train()
    randomise(model)
    return model


def set_dropout(model: nn.Module, share: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share


def gradients(model: MaskedLanguageModel, seed: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model.zero_grad()
    features = batch(model.config.num_token_types, pad=0)
    model(**features)[features["attention_mask"].bool()].square().mean().backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert torch.equal(gradient, expected[name]), name


OPTIONS: list[dict[str, int]] = [{"every_n_layers": 2}, {"offload": True}]


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in TINY_CONFIGS), *((name, more) for name in ("albert", "modernbert") for more in OPTIONS)],
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_the_same_to_the_bit(name: str, dropout: float, options: dict[str, int]) -> None:
    model = model_of(name)
    set_dropout(model, dropout)
    expected = gradients(model)
    model.activation_checkpointing_enable(None, **options)
    assert_equal(gradients(model), expected)
    model.activation_checkpointing_disable()
    assert_equal(gradients(model), expected)


def test_without_the_state_of_the_generator_dropout_differs() -> None:
    model = model_of()
    set_dropout(model, 0.3)
    expected = gradients(model)
    model.gradient_checkpointing_enable({"preserve_rng_state": False, "determinism_check": "none"})
    found = gradients(model)
    assert any(not torch.allclose(found[name], expected[name]) for name in found)


def calls(model: MaskedLanguageModel) -> list[int]:
    counts = [0] * len(model.backbone.layers)
    for index, layer in enumerate(model.backbone.layers):

        def count(module: nn.Module, inputs: object, index: int = index) -> None:
            counts[index] += 1

        layer.register_forward_pre_hook(count)
    gradients(model)
    return counts


@pytest.mark.parametrize(("every", "expected"), [(1, [2, 2, 2, 2, 2]), (2, [2, 1, 2, 1, 2]), (3, [2, 1, 1, 2, 1])])
def test_one_of_so_many_layers_runs_twice_and_its_hooks_too(every: int, expected: list[int]) -> None:
    model = model_of("modernbert")
    model.gradient_checkpointing_enable(every_n_layers=every)
    assert calls(model) == expected


def test_steps_are_counted_where_layers_are_shared() -> None:
    model = model_of("albert")
    assert model.config.steps == (0, 0, 0, 1, 1)
    model.gradient_checkpointing_enable(every_n_layers=2)
    assert calls(model) == [3 + 2, 2 + 1]


def test_what_is_kept_moves_to_the_host() -> None:
    def kept(offload: bool) -> int:
        model, moved = model_of(), []
        model.gradient_checkpointing_enable(offload=offload)
        original = Tensor.cpu
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tensor, "cpu", lambda self: moved.append(self.shape) or original(self))
            gradients(model)
        return len(moved)

    assert kept(False) == 0
    assert kept(True) == 3  # what each of the three layers starts from


def test_both_names_do_the_same() -> None:
    model = model_of()
    assert not model.is_gradient_checkpointing and not model.is_activation_checkpointing
    model.gradient_checkpointing_enable({"use_reentrant": False}, 2, True)
    first = model.backbone.checkpointing
    assert model.is_gradient_checkpointing and model.is_activation_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.is_activation_checkpointing and model.backbone.checkpointing is None
    model.activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=2, offload=True)
    assert model.backbone.checkpointing == first is not None
    copy = deepcopy(model)
    model.activation_checkpointing_disable()
    assert copy.is_gradient_checkpointing and not model.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"use_reentrant": True},), "use_reentrant must be False"),
        (({"use_reentrant": None},), "use_reentrant must be False"),
        (({"reentrant": False},), r"unknown gradient_checkpointing_kwargs \['reentrant'\]; choose from \['determ"),
        (({"determinism_check": "some"},), "determinism_check must be 'default' or 'none', got 'some'"),
        ((None, 0), "every_n_layers must be an integer from 1 on, got 0"),
        ((None, True), "every_n_layers must be an integer from 1 on, got True"),
    ],
)
def test_other_options_are_refused(arguments: tuple[object, ...], message: str) -> None:
    model = model_of()
    with pytest.raises(ValueError, match=message):
        model.gradient_checkpointing_enable(*arguments)  # type: ignore[arg-type]
    assert not model.is_gradient_checkpointing


def test_a_model_may_not_support_it() -> None:
    class Plain(EncoderModel):
        supports_gradient_checkpointing = False

    with pytest.raises(ValueError, match="Plain does not support gradient checkpointing"):
        Plain.from_config(TINY_CONFIGS["bert"]).gradient_checkpointing_enable()


@pytest.mark.parametrize("asked", [False, True])
def test_behind_frozen_embeddings_gradients_arrive(asked: bool) -> None:
    model = model_of()
    set_dropout(model, 0.0)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    trained = model.backbone.layers[1].attention.v.weight.requires_grad_(True)
    expected = gradients(model)
    if asked:
        model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    assert_equal(gradients(model), expected)
    assert trained.grad is not None and trained.grad.abs().sum() > 0


def embedded(model: MaskedLanguageModel) -> Tensor:
    output: Tensor = model.get_input_embeddings()(batch()["input_ids"])
    return output


def test_asking_twice_is_asking_once() -> None:
    model = model_of()
    model.get_input_embeddings().requires_grad_(False)
    model.disable_input_require_grads()
    assert not embedded(model).requires_grad
    model.enable_input_require_grads()
    model.enable_input_require_grads()
    assert embedded(model).requires_grad
    with torch.no_grad():
        assert not embedded(model).requires_grad
    with torch.inference_mode():
        assert not embedded(model).requires_grad
    model.disable_input_require_grads()
    assert not embedded(model).requires_grad
    assert not model.get_input_embeddings()._forward_hooks


def test_copies_have_a_hook_of_their_own() -> None:
    model = model_of()
    model.get_input_embeddings().requires_grad_(False)
    model.enable_input_require_grads()
    for copy in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert embedded(copy).requires_grad
        copy.disable_input_require_grads()
        assert not embedded(copy).requires_grad and embedded(model).requires_grad


def test_new_embeddings_are_asked_too_and_the_old_ones_no_longer() -> None:
    model = model_of()
    old, new = model.get_input_embeddings(), nn.Embedding(*model.get_input_embeddings().weight.shape)
    model.enable_input_require_grads()
    model.set_input_embeddings(new)
    new.requires_grad_(False)
    assert embedded(model).requires_grad and not old._forward_hooks
    model.disable_input_require_grads()
    assert not embedded(model).requires_grad
    model.set_input_embeddings(old)
    assert not old._forward_hooks
