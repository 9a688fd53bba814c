"""Hostile folders of models that write text, and of graphs: the rows of weights and configurations, for their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from checkpoint_helpers import BAD_SAFETENSORS
from hostile_helpers import (
    PICKLE,
    WEIGHTS,
    Case,
    Harm,
    Run,
    as_pickle,
    both,
    config,
    door,
    file,
    hole,
    link,
    only_pickle,
    pipe,
    renamed,
    room,
    saved,
    tensors,
    values,
)
from seq2seq_helpers import SEQ2SEQ_CONFIGS, V, randomise_pair

from sparse_encoder import SparseEncoder
from sparse_encoder.generation import CausalLanguageModel, GenerationConfig, Seq2SeqModel

DECODERS = ("llama", "gpt2", "t5", "bart")
SMALL: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 12,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "max_position_embeddings": 26,
    },
    "gpt2": {"n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 26, "bos_token_id": 1, "eos_token_id": 16},
    "t5": SEQ2SEQ_CONFIGS["t5"],
    "bart": SEQ2SEQ_CONFIGS["bart"],
}
CONFIG, GENERATION, GRAPH = "config.json", "generation_config.json", "onnx/model.onnx"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
PAGE = b"<!DOCTYPE html><html><title>404</title></html>"


def make_decoders(root: Path) -> None:
    """Write a good folder of each kind: models that write, and a sparse encoder beside its graph."""
    for family, sizes in SMALL.items():
        kind = Seq2SeqModel if family in ("t5", "bart") else CausalLanguageModel
        model = kind.from_config({"model_type": family, "vocab_size": V, **sizes})
        randomise_pair(model)
        model.save_pretrained(root / family)
        GenerationConfig(eos_token_id=V - 1, pad_token_id=0, decoder_start_token_id=2).save_pretrained(root / family)
    SparseEncoder(str(root / "sparse"), device="cpu").export_onnx(root / "served")


def first(ending: str, change: str) -> Harm:
    """Return a harm to the first tensor whose name has an ending: to lose it, or to cut, turn or spoil it."""

    def harm(found: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(found) if name.endswith(ending))
        tensor = found.pop(name)
        if change == "cut":
            found[name] = tensor[:-1].clone()
        elif change == "turned":
            found[name] = tensor.T.contiguous()
        elif change == "not a number":
            tensor.view(-1)[1] = torch.nan
            found[name] = tensor

    return tensors(harm)


def graph(change: Callable[[Any, Path], object]) -> Harm:
    """Return a harm that changes the graph, and writes it as onnx does."""

    def harm(folder: Path) -> None:
        model = onnx.load(folder / GRAPH)
        change(model, folder)
        (folder / GRAPH).write_bytes(model.SerializeToString())

    return harm


def weights_at(place: str) -> Callable[[Any, Path], object]:
    """Return a change of a graph that moves its largest tensor to a file."""

    def change(model: Any, folder: Path) -> None:  # noqa: ANN401 - onnx has no types
        tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
        target = folder / "onnx" / place.format(folder.name)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place.format(folder.name))

    return change


def unknown_operator(model: Any, folder: Path) -> None:  # noqa: ANN401 - onnx has no types
    """Let a node be of nobody's operators."""
    model.graph.node[0].op_type = "Evil"


def other_names(model: Any, folder: Path) -> None:  # noqa: ANN401 - onnx has no types
    """Let the outputs have other names."""
    for node in model.graph.node:
        for number, name in enumerate(node.output):
            if name == "sentence_embedding":
                node.output[number] = "evil"
    model.graph.output[0].name = "evil"


PLACES = {
    "llama": ("mlp.down_proj.weight", "input_layernorm.weight"),
    "gpt2": ("mlp.c_fc.weight", "attn.c_attn.bias"),
    "t5": ("DenseReluDense.wi.weight", "SelfAttention.relative_attention_bias.weight"),
    "bart": ("fc1.weight", "encoder_attn.k_proj.bias"),
}
"""A matrix that is not square, and another tensor, of each family."""

VALUES = {
    "llama": {
        "num_key_value_heads": (0, -1, 10**9, "2", True),
        "head_dim": (0, -1, 2**40, "4"),
        "rope_theta": (0, -1.0, "x", True),
        "rope_scaling": ({"rope_type": "evil"}, {"rope_type": "os.system", "factor": 2.0}, "linear", [1]),
        "rms_norm_eps": (0, -1e-6, "x"),
        "hidden_act": ("os.system", ["silu"], 5),
        "num_hidden_layers": (0, -1, 10**6),
        "intermediate_size": (-1, 10**12),
        "vocab_size": (-1, 0, 10**12),
        "max_position_embeddings": (-1, 0),
        "attention_bias": ("yes", [1]),
        "tie_word_embeddings": ("yes", {}),
        "attention_dropout": (2.0, -1),
        "architectures": (["EvilModel"], "LlamaForCausalLM"),
    },
    "gpt2": {
        "n_embd": (-12, 0, 2**40, "12"),
        "n_head": (0, -1, 5, 10**9),
        "n_layer": (0, -1, 10**6),
        "n_positions": (0, -1, 10**10),
        "n_inner": (-1, 10**12),
        "activation_function": ("os.system", ["gelu"]),
        "layer_norm_epsilon": (0, -1.0),
        "attn_pdrop": (1.5, -0.1),
    },
    "t5": {
        "relative_attention_num_buckets": (0, -1, 10**9, 3),
        "relative_attention_max_distance": (0, -1),
        "d_kv": (0, -1, 2**40),
        "d_ff": (-1, 10**12),
        "num_layers": (0, -1, 10**6),
        "num_decoder_layers": (0, -1, 10**6),
        "feed_forward_proj": ("os.system", "gated-evil", 5),
        "dropout_rate": (2.0, "x"),
    },
    "bart": {
        "d_model": (0, -1, 2**40),
        "encoder_layers": (0, -1, 10**6),
        "decoder_layers": (0, -1, 10**6),
        "encoder_attention_heads": (0, 5),
        "decoder_attention_heads": (0, 5),
        "decoder_ffn_dim": (-1, 10**12),
        "activation_function": ("os.system", []),
        "max_position_embeddings": (0, -1, 10**10),
    },
}
"""What no config of a family may hold."""

WRITING = {
    "temperature": ("hot", [1.0], 1e999),
    "top_k": (1.5, "many", True),
    "num_beams": (0, -2, "4", 2**64),
    "max_new_tokens": (0, -1, "x"),
    "eos_token_id": ("</s>", [[1]], {}),
    "repetition_penalty": ("x",),
    "early_stopping": ("sometimes", 5),
    "cache_implementation": ("evil", 5, ["static"]),
    "bad_words_ids": ("x", [["a"]], {"a": 1}),
    "sequence_bias": ([[[], 1.0]], {"a": 1}, [[[1], "x"]]),
    "constraints": (["evil"],),
    "watermarking_config": ({"evil": 1},),
    "do_sample": ("yes", 1),
    "generator": (5,),
}
"""What no generation_config.json may hold."""

DECODER_CASES = [
    *(
        Case(f"{family}: {name}", rows, (family,), harm, error, says)
        for family in DECODERS
        for name, rows, harm, error, says in (
            ("a pickle that runs", (1,), only_pickle(saved({"a": Run()})), "CheckpointError", "weights_only=True"),
            ("a plain pickle", (1,), as_pickle, None, "sparse-encoder convert"),
            ("names of nobody", (8,), renamed("x."), "CheckpointError", "missing"),
            ("a matrix lost", (9,), first(PLACES[family][0], "lost"), "CheckpointError", PLACES[family][0]),
            ("a tensor lost", (9,), first(PLACES[family][1], "lost"), "CheckpointError", PLACES[family][1]),
            ("a row less", (10,), first(PLACES[family][0], "cut"), "CheckpointError", PLACES[family][0]),
            ("turned", (10,), first(PLACES[family][0], "turned"), "CheckpointError", PLACES[family][0]),
            ("not a number", (11,), first(PLACES[family][1], "not a number"), "CheckpointError", "NaN or infinite"),
            ("one too many", (7,), tensors(lambda all_: all_.update(extra=torch.ones(2))), "CheckpointError", "extra"),
        )
    ),
    *(
        Case(f"llama: {name}", (13, 14, 15, 17, 20), ("llama",), file(WEIGHTS, content), "CheckpointError", "")
        for name, (content, _) in BAD_SAFETENSORS.items()
        if not name.startswith("value")  # of tensors that the model does not have
    ),
    *(
        Case(f"{family}: {name} is {value!r:.40}", (22, 23, 25, 26), (family,), config(**{name: value}), "ConfigError")
        for family in DECODERS
        for name, bad in VALUES[family].items()
        for value in bad
    ),
    *(
        Case(
            f"{family} asks for code",
            (24,),
            (family,),
            config(auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"}, trust_remote_code=True),
            None,
            "auto_map.*nothing is imported",
        )
        for family in DECODERS
    ),
    *(
        Case(f"writing: {name} is {value!r:.40}", (22, 23, 26), ("llama",), values(GENERATION, **{name: value}), error)
        for error in ("ConfigError",)
        for name, bad in WRITING.items()
        for value in bad
    ),
    *(
        Case(f"writing: {what}", (20, 21), ("llama", "bart"), file(GENERATION, content), "ConfigError", says)
        for what, content, says in (
            ("a pointer", POINTER, "not valid JSON"),
            ("a page", PAGE, "not valid JSON"),
            ("nothing", b"", "not valid JSON"),
            ("a list", b"[]", "JSON object"),
            ("NaN", b'{"temperature": NaN}', "NaN"),
            ("a key twice", b'{"top_k": 1, "top_k": 2}', "there twice"),
            ("deep", b"[" * 200_000, "nested deeper"),
        )
    ),
    *(
        Case(f"writing: {what.__name__}", (5, 19), ("llama", "t5"), what(GENERATION), "ConfigError")
        for what in (pipe, room, door, link)
    ),
    Case("writing: a gigabyte", (21,), ("llama",), hole(GENERATION, 1 << 30), "ConfigError", "larger than"),
    Case("writing: beside a pickle", (2,), ("llama",), file(PICKLE, b"x"), None, closed=PICKLE),
    *(
        Case(f"graph: {what}", (20,), ("served",), file(GRAPH, content), "CheckpointError")
        for what, content in (("a pointer", POINTER), ("a page", PAGE), ("nothing", b""), ("zeros", bytes(1000)))
    ),
    *(
        Case(f"graph: {what.__name__}", (5, 19), ("served",), what(GRAPH), error)
        for what, error in (
            *((what, "CheckpointError") for what in (pipe, room, door)),
            (link, "ConfigError"),
        )
    ),
    Case("graph: a quarter terabyte", (16,), ("served",), hole(GRAPH, 1 << 38), "CheckpointError"),
    *(
        Case(f"graph: weights at {place}", (3, 5), ("served",), graph(weights_at(place)), "CheckpointError")
        for place in ("../../outside-{}",)
    ),
    Case("graph: an unknown operator", (25,), ("served",), graph(unknown_operator), "CheckpointError"),
    Case("graph: other outputs", (7,), ("served",), graph(other_names), "CheckpointError"),
    Case("graph: weights in a pickle", (2,), ("served",), both(file(PICKLE, b"x")), None, closed=PICKLE),
]
