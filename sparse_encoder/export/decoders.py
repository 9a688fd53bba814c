"""Describe the graphs of models that write. Knows nothing of files.

Axes: B texts, H heads of keys and values, S tokens of the encoder, T new tokens, P tokens of the past, K head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sparse_encoder.backbone.cache import DynamicCache, EncoderDecoderCache
from sparse_encoder.checkpoint.graph_names import LONGEST
from sparse_encoder.export.batches import example_length, text_batch, vocabulary_of
from sparse_encoder.export.decoder_graphs import CausalGraph, DecoderGraph, EncoderGraph, places_of
from sparse_encoder.export.graph import Case, Graph, Tensors
from sparse_encoder.export.metadata import metadata_of
from sparse_encoder.export.onnx_config_seq2seq import PAST_ENCODER, OnnxSeq2SeqConfigWithPast
from sparse_encoder.export.onnx_config_with_past import PAST, PRESENT, OnnxConfigWithPast, is_past
from sparse_encoder.export.tasks import BATCH

if TYPE_CHECKING:
    from sparse_encoder.generation import CausalLanguageModel, Seq2SeqModel


class Step(NamedTuple):
    """The shape of a step of decoding."""

    texts: int
    new: int
    past: int


STEPS = (Step(1, 5, 0), Step(3, 7, 0), Step(1, 1, 0), Step(2, 3, 5), Step(4, 1, 9), Step(1, 1, 1), Step(3, 2, 17))
"""Prompts, alone and padded on the left, and steps that go on."""
EXAMPLE_EXTRA = 2
DECODER_INPUTS = ("attention_mask", "decoder_input_ids", "decoder_attention_mask")
"""Of the second graph of two stacks, beside the past."""
SOURCE_LENGTHS = (6, 11, 1, 4, 9, 3, 2)
"""Tokens of the encoder, for each step."""


def causal_graph(model: CausalLanguageModel, config: OnnxConfigWithPast) -> Graph:
    """Describe the graph of a model that writes on.

    Args:
        model: The model.
        config: Says whether there is a past, and the names.
    """
    use_past, longest = config.use_past, model.config.max_tokens
    inputs = in_order(config, ("input_ids", "attention_mask"))
    length = example_length(model.config)
    steps = [step for step in STEPS if use_past or not step.past]
    example = Step(2, length, length + EXAMPLE_EXTRA if use_past else 0)
    if example.new + example.past > longest:
        example = Step(2, max(2, longest // 2 - 1), max(2, longest - longest // 2) if use_past else 0)
    return Graph(
        module=CausalGraph(model, use_past=use_past),
        reference=_by_a_causal_model(model, config),
        inputs=inputs,
        outputs=config.outputs,
        example=_causal_inputs(model, config, example, seed=0),
        cases=[
            Case(_label(step), _causal_inputs(model, config, step, seed=seed))
            for seed, step in enumerate(steps, start=1)
            if step.new + step.past <= longest
        ],
        metadata=metadata_of(_task(config), {LONGEST: longest}),
    )


def in_order(config: OnnxConfigWithPast, names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Return a configuration's inputs in the order in which a graph takes them, whatever theirs is: the past last.

    Args:
        config: The configuration.
        names: Of the inputs that are no past.

    Raises:
        ValueError: If one of them is missing, or there are others; names them.
    """
    given = config.inputs
    past = [name for name in given if is_past(name)]
    own = [name for name in given if name not in past]
    if sorted(own) != sorted(names):
        hint = "what the encoder makes of its tokens is in past_key_values, and another graph's; " * (
            "input_ids" in own
        )
        raise ValueError(
            f"the inputs of a graph of {config.task!r} with use_past={config.use_past} must be {list(names)} and the "
            f"past, the configuration names {own}; {hint}leave out {sorted(set(own) - set(names))} and add "
            f"{sorted(set(names) - set(own))}"
        )
    return {name: given[name] for name in (*names, *past)}


def _task(config: OnnxConfigWithPast) -> str:
    return f"{config.task}-with-past" if config.use_past else config.task


def _label(step: Step) -> str:
    kind = "a past" if step.past else "no past"
    return f"{kind} of {step.past} tokens" + (", rows padded on the left" if step.texts > 1 else "")


def _draw(shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _causal_inputs(model: CausalLanguageModel, config: OnnxConfigWithPast, step: Step, *, seed: int) -> Tensors:
    """Make the inputs of a step; of several rows some are padded on the left, in the past if there is one."""
    total = step.past + step.new
    hidden = [total // 3, 0, total // 2] if step.texts > 1 else []
    batch = text_batch((step.texts, total), vocabulary_of(model.config), padding=hidden, left=True, seed=seed)
    inputs = {"input_ids": batch["input_ids"][:, step.past :], "attention_mask": batch["attention_mask"]}
    if config.use_past:
        shape = (step.texts, config.num_attention_heads, step.past, config.head_width)
        for layer in range(config.num_layers):
            for place, part in enumerate(("key", "value")):
                inputs[f"{PAST}.{layer}.{part}"] = _draw(shape, model.dtype, 100 * seed + 2 * layer + place)
    return inputs


def _past_of(inputs: Tensors, parts: tuple[str, str], num_layers: int) -> DynamicCache:
    """Put the past of a graph's inputs into a cache, which may write into it: a copy."""
    names = [tuple(f"{PAST}.{layer}.{part}" for part in parts) for layer in range(num_layers)]
    return DynamicCache.from_tensors([(inputs[key].clone(), inputs[value].clone()) for key, value in names])


def _by_a_causal_model(model: CausalLanguageModel, config: OnnxConfigWithPast) -> Callable[[Tensors], Tensors]:
    """Return a function that computes what the graph shall give by the model itself."""

    def reference(inputs: Tensors) -> Tensors:
        cache = _past_of(inputs, ("key", "value"), config.num_layers) if config.use_past else None
        mask = inputs["attention_mask"]
        places = places_of(mask, inputs["input_ids"].shape[1])
        output = model(inputs["input_ids"], mask, position_ids=places, past_key_values=cache, use_cache=config.use_past)
        found = {"logits": output.logits}
        if cache is not None:
            found |= config.flatten_output_collection_property(PRESENT, cache.to_tensors())
        return found

    return reference


def encoder_graph(model: Seq2SeqModel, config: OnnxSeq2SeqConfigWithPast) -> Graph:
    """Describe the graph of the encoder: its states, and what each layer of the decoder keeps of them.

    Args:
        model: The model.
        config: Of the decoder, with a past.
    """
    vocabulary = vocabulary_of(model.config)
    axes = {0: BATCH, 1: "encoder_sequence"}
    kept = [f"{PRESENT}.{layer}.encoder.{part}" for layer in range(config.num_layers[1]) for part in ("key", "value")]

    def reference(inputs: Tensors) -> Tensors:
        states = model.encode(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache())
        model(
            decoder_input_ids=inputs["input_ids"][:, :1],
            encoder_outputs=(states,),
            attention_mask=inputs["attention_mask"],
            past_key_values=cache,
        )
        tensors = [tensor for pair in cache.cross_attention_cache.to_tensors() for tensor in pair]
        return {"last_hidden_state": states, **dict(zip(kept, tensors, strict=True))}

    def batch(texts: int, tokens: int, seed: int) -> Tensors:
        return text_batch((texts, tokens), vocabulary, padding=[tokens // 2] if texts > 1 else [], seed=seed)

    return Graph(
        module=EncoderGraph(model),
        reference=reference,
        inputs={"input_ids": axes, "attention_mask": axes},
        outputs={"last_hidden_state": axes, **{name: {0: BATCH, 2: "encoder_sequence"} for name in kept}},
        example=batch(2, example_length(model.config), 0),
        cases=[
            Case("padded rows" if step.texts > 1 else "a text alone", batch(step.texts, tokens, seed))
            for seed, (step, tokens) in enumerate(zip(STEPS, SOURCE_LENGTHS, strict=True), start=1)
        ],
        metadata=metadata_of("seq2seq-lm-encoder", {LONGEST: model.config.max_tokens}),
    )


def decoder_graph(model: Seq2SeqModel, config: OnnxSeq2SeqConfigWithPast) -> Graph:
    """Describe the graph of the decoder; which takes what :func:`encoder_graph` gives; arguments as there."""
    example = Step(2, EXAMPLE_EXTRA, 5)
    return Graph(
        module=DecoderGraph(model),
        reference=_by_a_decoder(model, config),
        inputs=in_order(config, DECODER_INPUTS),
        outputs={name: axes for name, axes in config.outputs.items() if ".encoder." not in name},
        example=_decoder_inputs(model, config, example, 7, seed=0),
        cases=[
            Case(_label(step), _decoder_inputs(model, config, step, tokens, seed=seed))
            for seed, (step, tokens) in enumerate(zip(STEPS, SOURCE_LENGTHS, strict=True), start=1)
        ],
        metadata=metadata_of("seq2seq-lm-with-past", {LONGEST: model.config.max_tokens}),
    )


def _decoder_inputs(
    model: Seq2SeqModel, config: OnnxSeq2SeqConfigWithPast, step: Step, source: int, *, seed: int
) -> Tensors:
    vocabulary = vocabulary_of(model.config)
    padding = [source // 2] if step.texts > 1 else []
    texts = text_batch((step.texts, source), vocabulary, padding=padding, seed=seed)
    own = text_batch((step.texts, step.past + step.new), vocabulary, seed=seed + 50)
    inputs = {
        "attention_mask": texts["attention_mask"],
        "decoder_input_ids": own["input_ids"][:, step.past :],
        "decoder_attention_mask": own["attention_mask"],
    }
    names = [name for name in config.inputs if is_past(name)]
    for number, name in enumerate(names):
        tokens = source if config.inputs[name].get(2) == PAST_ENCODER else step.past
        shape = (step.texts, config.num_attention_heads[1], tokens, config.head_width)
        inputs[name] = _draw(shape, model.dtype, 1000 * seed + number)
    return inputs


def _by_a_decoder(model: Seq2SeqModel, config: OnnxSeq2SeqConfigWithPast) -> Callable[[Tensors], Tensors]:
    def reference(inputs: Tensors) -> Tensors:
        layers = config.num_layers[1]
        own = _past_of(inputs, ("decoder.key", "decoder.value"), layers)
        cache = EncoderDecoderCache(own, _past_of(inputs, ("encoder.key", "encoder.value"), layers))
        mask = inputs["attention_mask"]
        width = model.config.hidden_size
        states = torch.zeros(*mask.shape, width, dtype=model.dtype, device=mask.device)  # the cache has what they gave
        output = model(
            decoder_input_ids=inputs["decoder_input_ids"],
            decoder_attention_mask=inputs["decoder_attention_mask"],
            encoder_outputs=(states,),
            attention_mask=mask,
            past_key_values=cache,
        )
        found = {"logits": output.logits}
        for layer, (key, value) in enumerate(own.to_tensors()):
            found |= {f"{PRESENT}.{layer}.decoder.key": key, f"{PRESENT}.{layer}.decoder.value": value}
        return found

    return reference
