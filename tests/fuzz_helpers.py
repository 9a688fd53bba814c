"""Files of models, changed at random where it may hurt, and what must come of it: a typed error, or what is there.

Each target owns a good folder. ``attempt`` changes a file by draws of hypothesis, opens the folder, and judges the
outcome; ``tests/test_fuzz_loading.py`` and ``tests/soak/fuzz_loading.py`` run it.
"""

from __future__ import annotations

import copy
import json
import math
import struct
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, randomise
from decoder_encoder_helpers import DECODERS
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from model_helpers import write_masked_language_model
from safetensors.torch import load_file, save_file
from seq2seq_helpers import SEQ2SEQ_CONFIGS
from text_helpers import BERT, bert_backend, write_folder

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.backbone.adapters import LoraConfig
from sparse_encoder.backbone.families import family_of, read_config
from sparse_encoder.checkpoint import LoadError, read_json_object, read_safetensors, read_tensors
from sparse_encoder.generation import GenerationConfig, Seq2SeqModel
from sparse_encoder.generation.config_fields import FIELDS
from sparse_encoder.modules import SpladePooling, Transformer
from sparse_encoder.modules.module_types import MODULE_TYPES
from sparse_encoder.tokenizer import Tokenizer

CPU_SECONDS = 2.0
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ODD = [None, True, False, -1, 0, 1, 2, 3, 7, 12, 99, 2**31, 2**63, 10**20, -(2**63), 0.0, 1.5, -0.5, 1e-30, 1e300, ""]
ODD += ["x", "\0", "../x", "/etc/passwd", "os.system", "gelu", "F32", "a" * 3000, "日本", "\ud800", "12", "(a+)+$"]
ODD += [[], {}, [1], ["x"], [[]], [None], {"x": 1}, [0, 4], [2**62, 0], {"type": "Lowercase"}, [[["x"], 0.5]]]
Json = Any  # parsed JSON


def places(value: Json, start: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Go through the places inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*start, key)
        yield from places(item, (*start, key))


def changed(data: DataObject, value: Json) -> Json:
    """Remove, replace, add or swap something, once or several times."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 3))):
        found = list(places(value))
        if not found:
            return value
        *way, last = data.draw(st.sampled_from(found))
        node = value
        for key in way:
            node = node[key]
        how = data.draw(st.sampled_from(["odd", "odd", "odd", "remove", "near", "swap", "add"]))
        if how == "remove":
            del node[last]
        elif how == "near" and type(node[last]) in (int, float):
            node[last] += data.draw(st.sampled_from([-1, 1, -8, 8, 64]))
        elif how == "swap":
            *other_way, other = data.draw(st.sampled_from(found))
            node[last] = copy.deepcopy(reach(value, [*other_way, other]))
        elif how == "add" and isinstance(node, dict):
            node[data.draw(st.sampled_from(["x", "", "type", "../x", "__metadata__", "a.b"]))] = data.draw(odd())
        else:
            node[last] = data.draw(odd())
    return value


def reach(value: Json, way: list[str | int]) -> Json:
    """Return what is at a place, or the last that is still there."""
    for key in way:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return value
    return value


def odd() -> st.SearchStrategy[Json]:
    """Draw something that should not be there."""
    return (
        st.sampled_from(ODD).map(copy.deepcopy) | st.integers(-5, 300) | st.floats(allow_nan=True) | st.text(max_size=5)
    )


def spelled(data: DataObject, value: Json) -> bytes:
    """Write JSON, at times with damaged bytes."""
    content = json.dumps(value).encode("utf-8", "surrogatepass")
    return damaged(data, content) if data.draw(st.integers(0, 9)) == 0 else content


def damaged(data: DataObject, content: bytes) -> bytes:
    """Change, cut, repeat or add bytes."""
    found = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(len(found) - 1, 0)))
        how = data.draw(st.sampled_from(["set", "set", "cut", "drop", "repeat", "add"]))
        if how == "set" and found:
            found[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del found[place:]
        elif how == "drop":
            del found[place : place + data.draw(st.integers(1, 9))]
        elif how == "repeat":
            found[place:place] = found[place : place + 20]
        else:
            found += data.draw(st.binary(max_size=9))
    return bytes(found)


def plain_tensors(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Read a safetensors file in the plainest way."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    start, found = 8 + length, {}
    sizes = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8, "BOOL": np.bool_, "F64": np.float64}
    sizes |= {"I32": np.int32, "BF16": np.uint16}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(content[start + begin : start + end], dtype=sizes[entry["dtype"]])
        found[name] = flat.reshape(entry["shape"])
    return found


def same(tensors: dict[str, torch.Tensor], expected: dict[str, np.ndarray[Any, Any]]) -> None:
    """Compare tensors with what is stored, bit by bit."""
    assert set(tensors) == set(expected)
    for name, tensor in tensors.items():
        array = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
        assert array.shape == expected[name].shape and array.tobytes() == expected[name].tobytes(), name


class Target(ABC):
    """A folder, and what opens it.

    Args:
        root: Where the folder may be made.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / type(self).__name__
        self.folder.mkdir(parents=True)
        self.opened = self.refused = 0
        self.slowest = 0.0

    @abstractmethod
    def spoil(self, data: DataObject) -> None:
        """Write the folder anew, with something changed."""

    @abstractmethod
    def open(self) -> None:
        """Open the folder; judge what was read if it could be."""

    def attempt(self, data: DataObject) -> None:
        """Spoil and open once; only the library's errors may come of it."""
        self.spoil(data)
        started = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.open()
            except (LoadError, FileNotFoundError):
                self.refused += 1
            else:
                self.opened += 1
        seconds = time.process_time() - started
        self.slowest = max(self.slowest, seconds)
        assert seconds < CPU_SECONDS, f"{seconds} s"


class Configs(Target):
    """``config.json`` of every family, beside the weights of the unchanged one."""

    DERIVED = ("max_positions", "local_window", "down_bias", "num_layers")
    """Fields that are not always a key's value: roberta's offset, half windows, albert's groups."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        two_stacks = {config["model_type"] for config in SEQ2SEQ_CONFIGS.values()}
        self.configs = {**TINY_CONFIGS, **VARIANTS, **DECODERS, **SEQ2SEQ_CONFIGS}
        self.kinds = [
            Seq2SeqModel if config["model_type"] in two_stacks else MaskedLanguageModel
            for config in self.configs.values()
        ]
        self.models = {
            name: kind.from_config(config).eval()
            for kind, (name, config) in zip(self.kinds, self.configs.items(), strict=True)
        }
        for number, model in enumerate(self.models.values()):
            randomise(model)
            model.save_pretrained(self.folder / str(number))
        self.stored = [json.loads((self.folder / str(n) / "config.json").read_text()) for n in range(len(self.models))]

    def spoil(self, data: DataObject) -> None:
        self.number = data.draw(st.integers(0, len(self.stored) - 1))
        content = spelled(data, changed(data, self.stored[self.number]))
        (self.folder / str(self.number) / "config.json").write_bytes(content)

    def open(self) -> None:
        folder = self.folder / str(self.number)
        values = read_json_object(folder / "config.json")
        config, family = read_config(values, folder / "config.json"), family_of(values)
        for field, key in family.config_keys.items():
            given = values.get(key)
            if type(given) in (int, float) and field not in self.DERIVED:
                assert getattr(config, field) == given, (field, key)
        with torch.device("meta"):
            self.kinds[self.number](config, values)
        model = self.kinds[self.number].from_pretrained(folder)
        good = list(self.models.values())[self.number].state_dict()
        assert set(model.state_dict()) == set(good)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, good[name].to(tensor.dtype)), name


class Indices(Target):
    """``model.safetensors.index.json`` beside two shards."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.tensors = {name: torch.arange(size, dtype=torch.float32) for size, name in enumerate("abcdef", start=2)}
        self.tensors["pooler.dense.weight"] = torch.ones(3)
        for shard, names in (("one.safetensors", "abc"), ("two.safetensors", ["d", "e", "f", "pooler.dense.weight"])):
            save_file({name: self.tensors[name] for name in names}, self.folder / shard)
        places_of = {name: "one.safetensors" if name in "abc" else "two.safetensors" for name in self.tensors}
        self.index = {"metadata": {"total_size": 100, "dtype": "float32"}, "weight_map": places_of}

    def spoil(self, data: DataObject) -> None:
        (self.folder / INDEX).write_bytes(spelled(data, changed(data, self.index)))

    def open(self) -> None:
        found = read_tensors(self.folder)
        listed = json.loads((self.folder / INDEX).read_bytes())["weight_map"]
        assert set(listed) <= set(found) <= {*listed, "pooler.dense.weight"}
        same(found, {name: self.tensors[name].numpy() for name in found})


class Headers(Target):
    """One safetensors file, its header changed as JSON or as bytes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        tensors = {"a": torch.ones(2, 3), "b.c": torch.arange(4), "half": torch.ones(3).half(), "none": torch.ones(0)}
        save_file(tensors, self.folder / WEIGHTS, {"format": "pt"})
        self.content = (self.folder / WEIGHTS).read_bytes()

    def spoil(self, data: DataObject) -> None:
        (length,) = struct.unpack("<Q", self.content[:8])
        content = self.content
        if data.draw(st.booleans()):
            header = json.dumps(changed(data, json.loads(content[8 : 8 + length]))).encode()
            content = struct.pack("<Q", len(header)) + header + content[8 + length :]
        if content == self.content or data.draw(st.booleans()):
            content = damaged(data, content)
        (self.folder / WEIGHTS).write_bytes(content)

    def open(self) -> None:
        found = read_safetensors(self.folder / WEIGHTS)
        assert all(bool(torch.isfinite(each).all()) for each in found.values() if each.is_floating_point())
        same(found, plain_tensors((self.folder / WEIGHTS).read_bytes()))


class Modules(Target):
    """The files of a sparse encoder that name its modules and their options."""

    NAMES = ("modules.json", "1_SpladePooling/config.json", "config_sentence_transformers.json")

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        plain = write_masked_language_model(root / "plain")
        SparseEncoder(str(plain), device="cpu").save_pretrained(str(self.folder))
        names = [*self.NAMES, SparseEncoder(str(plain), device="cpu")[0].config_file_name]
        self.contents = {name: json.loads((self.folder / name).read_text()) for name in names}

    def spoil(self, data: DataObject) -> None:
        for name, content in self.contents.items():
            (self.folder / name).write_text(json.dumps(content))
        name = data.draw(st.sampled_from([*self.contents, "modules.json"]))
        (self.folder / name).write_bytes(spelled(data, changed(data, self.contents[name])))

    def open(self) -> None:
        model = SparseEncoder(str(self.folder), device="cpu")
        listed = json.loads((self.folder / "modules.json").read_bytes())
        settings = json.loads((self.folder / "config_sentence_transformers.json").read_bytes())
        if settings.get("model_type") == "SparseEncoder":
            assert [type(each) for each in model] == [MODULE_TYPES[entry["type"]] for entry in listed]
            saved = {name: prompt or "" for name, prompt in (settings.get("prompts") or {}).items()}
            assert model.prompts.items() >= saved.items()
        if [type(each) for each in model] == [Transformer, SpladePooling]:  # in another order they may not fit
            row = model.encode(["rain on stone"], convert_to_tensor=True).to_dense()
            assert bool(torch.isfinite(row).all())


class Tokenizers(Target):
    """``tokenizer.json`` and ``tokenizer_config.json``."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.content = json.loads(bert_backend().to_str())
        added = {"4": {"content": "[MASK]", "special": True}}
        self.config = {**BERT, "model_max_length": 20, "padding_side": "right", "added_tokens_decoder": added}
        self.config |= {"additional_special_tokens": ["[MASK]"], "model_input_names": ["input_ids"]}

    def spoil(self, data: DataObject) -> None:
        write_folder(self.folder, self.content, config=self.config)
        if data.draw(st.integers(0, 2)):
            (self.folder / "tokenizer.json").write_bytes(spelled(data, changed(data, self.content)))
        else:
            (self.folder / "tokenizer_config.json").write_bytes(spelled(data, changed(data, self.config)))

    def open(self) -> None:
        tokenizer = Tokenizer.from_pretrained(self.folder)
        limit = json.loads((self.folder / "tokenizer_config.json").read_bytes()).get("model_max_length")
        assert limit is None or tokenizer.model_max_length == int(min(limit, 10**30))
        ids = tokenizer.encode_batch(["sparse a b.", "", "zz [MASK] 東"], max_length=10).input_ids
        assert all(0 <= number < tokenizer.vocab_size for row in ids for number in row)


class Adapters(Target):
    """``adapter_config.json`` beside the tensors of the unchanged one."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.model = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"]).eval()
        self.model.add_adapter(LoraConfig(r=3, lora_alpha=6))
        self.model.save_adapter(self.folder)
        self.model.delete_adapter("default")
        self.config = json.loads((self.folder / "adapter_config.json").read_text())
        self.before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def spoil(self, data: DataObject) -> None:
        (self.folder / "adapter_config.json").write_bytes(spelled(data, changed(data, self.config)))

    def open(self) -> None:
        try:
            self.model.load_adapter(self.folder)
            stored = load_file(self.folder / "adapter_model.safetensors")
            held = self.model.get_adapter_state_dict()
            same(held, {name.removeprefix("base_model.model."): each.numpy() for name, each in stored.items()})
            values = json.loads((self.folder / "adapter_config.json").read_bytes())
            config = self.model.adapter_named(None).config
            given = {name: values[name] for name in ("r", "lora_alpha", "lora_dropout", "bias") if name in values}
            assert all(getattr(config, name) == value for name, value in given.items()), given
            assert math.isfinite(config.lora_alpha)
            self.model.delete_adapter("default")
        finally:
            same(self.model.state_dict(), {name: tensor.numpy() for name, tensor in self.before.items()})


class Generation(Target):
    """``generation_config.json``, alone in a folder."""

    NAME = "generation_config.json"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        ids = {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0, "bad_words_ids": [[4, 5], [6]]}
        choice = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "num_beams": 2, "max_length": 40}
        others = {"sequence_bias": [[[7], -1.5]], "stop_strings": ["end"], "constraints": None, "their_own": {"a": [1]}}
        self.content = {**ids, **choice, **others, "cache_implementation": "static", "transformers_version": "5.23.0"}

    def spoil(self, data: DataObject) -> None:
        (self.folder / self.NAME).write_bytes(spelled(data, changed(data, self.content)))

    def open(self) -> None:
        config = GenerationConfig.from_pretrained(self.folder)
        for name, given in read_json_object(self.folder / self.NAME).items():
            if name in FIELDS and type(given) in (bool, int, float, str, type(None)):
                assert getattr(config, name) == given, name
        config.save_pretrained(self.folder)
        assert GenerationConfig.from_pretrained(self.folder) == config


TARGETS: tuple[type[Target], ...] = (Configs, Indices, Headers, Modules, Tokenizers, Adapters, Generation)
