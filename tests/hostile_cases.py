"""The hostile folders by the numbers of bad_inputs.py: 1 to 29 here, tokenizers and the hub elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import torch
from checkpoint_helpers import BAD_SAFETENSORS, entry, safetensors_bytes
from hostile_helpers import (
    DENSE,
    INDEX,
    MODELS,
    PICKLE,
    WEIGHTS,
    Case,
    Harm,
    Run,
    as_pickle,
    both,
    config,
    cut_tensor,
    door,
    file,
    header,
    hole,
    index,
    link,
    modules,
    only_pickle,
    packed,
    pipe,
    renamed,
    room,
    saved,
    table_of,
    tensors,
    two_shards,
    values,
    with_value,
)

from sparse_encoder.search.arrays import ArrayFolder

TEXTS = ("encoder", "tokenizer", "tagger")
BACKBONES = ("encoder", "masked", "tagger")
NO_INDEX = ("encoder", "masked", "tagger")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
PAGE = b"<!DOCTYPE html><html><title>404</title></html>"
WEIGHTS_ERROR, CONFIG_ERROR = "CheckpointError", "ConfigError"


def add_pickle(folder: Path) -> None:
    (folder / PICKLE).write_bytes(saved({"a": Run()}))


def many_tensors(count: int) -> bytes:
    return safetensors_bytes({f"t{number}": entry([0], 0, 0) for number in range(count)})


def huge_tensor(folder: Path) -> None:
    """Claim a quarter of a terabyte, and have it: as a hole in the file."""
    start = safetensors_bytes({"bert.embeddings.word_embeddings.weight": entry([1 << 36], 0, 1 << 38)})
    with (folder / WEIGHTS).open("wb") as made:
        made.write(start)
        made.truncate(len(start) + (1 << 38))


def shard_link(folder: Path) -> None:
    index("two.safetensors")(folder)
    outside = folder.parent / "outside" / f"{folder.name}.safetensors"
    outside.parent.mkdir(exist_ok=True)
    outside.write_bytes((folder / "one.safetensors").read_bytes())
    (folder / "two.safetensors").symlink_to(outside)


def blobs_of_another(folder: Path) -> None:
    """Lie in a snapshot of a hub's cache, and lead to the blobs of another repository."""
    other = folder.parent / "models--org--other" / "blobs"
    other.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).rename(other / f"{folder.name}")
    (folder / WEIGHTS).symlink_to(other / f"{folder.name}")


def listed(files: object) -> Harm:
    """Return a harm that writes another list of a checkpoint's files."""
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return file("MANIFEST.json", json.dumps({"format": 1, "files": files, "sha256": digest}))


def outside_arrays(folder: Path) -> None:
    """Let an index name files above it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"][0]["name"] = "../" + manifest["files"][0]["name"]
    digest = ArrayFolder(manifest["format"], manifest["version"]).digest(manifest)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest}))


def evil_code(folder: Path) -> None:
    for name in ("modeling_evil.py", "evil.py", "__init__.py", "sitecustomize.py"):
        (folder / name).write_text("import os\nos.system('touch pwned')\n")


def module(**changes: object) -> object:
    return modules(lambda found: found[1].update(changes))


SHARD_NAMES = ("../{}/one.safetensors", "../../etc/passwd", "/etc/passwd", "C:\\one.safetensors")
SHARD_NAMES += ("\\\\host\\one.safetensors", "a\\..\\one.safetensors", "", ".", "..", "one\0.safetensors", "/dev/zero")
SHARD_NAMES += ("sub/one.safetensors", "one.bin", "one.safetensors\n", "~/one.safetensors", "pytorch_model.bin")

CASES = [
    # row 1: pickles
    *table_of(
        [1],
        [
            ("a plain pickle", BACKBONES, as_pickle, None, "sparse-encoder convert"),
            ("a plain pickle in a shard", ["sharded"], as_pickle, None, ""),
            ("a plain pickle, refused", ["masked_safe"], as_pickle, WEIGHTS_ERROR, "has no weights"),
            ("a pickle that runs", MODELS, only_pickle(saved({"a": Run()})), WEIGHTS_ERROR, "weights_only=True"),
            (
                "an old pickle that runs",
                MODELS,
                only_pickle(b"cos\nsystem\n(S'touch pwned'\ntR."),
                WEIGHTS_ERROR,
                "weights_only=True",
            ),
            ("a pickle of a list", BACKBONES, only_pickle(saved([1])), WEIGHTS_ERROR, "named tensors, got list"),
            ("a packed pickle", BACKBONES, only_pickle(packed(b"x")), WEIGHTS_ERROR, "compressed records"),
            (
                "a pickle of a tensor of a trillion",
                BACKBONES,
                only_pickle(saved({"a": torch.zeros(1).expand(2**40)})),
                WEIGHTS_ERROR,
                "claims .* far more than it has",
            ),
            ("a cut pickle", BACKBONES, only_pickle(saved({"a": torch.ones(50)})[:-300]), WEIGHTS_ERROR, "archive"),
            ("no weights", BACKBONES, lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS_ERROR, "has no weights"),
        ],
    ),
    # row 2: both
    Case("both kinds of weights", (2,), BACKBONES, add_pickle, None, closed=PICKLE),
    Case("a pickle that is a pipe", (2, 19), BACKBONES, pipe(PICKLE), None, closed=PICKLE),
    # rows 3 and 4: names of shards
    *(
        Case(f"shard {name!r}", (3,) if name.startswith("..") else (4,), MODELS, index(name), WEIGHTS_ERROR, "a shard")
        for name in SHARD_NAMES
    ),
    *(
        Case(f"shard {name!r}", (4,), MODELS, index(name), WEIGHTS_ERROR, "a shard must")  # type: ignore[arg-type]
        for name in (None, 5, ["one.safetensors"], {"a": 1}, True)
    ),
    # row 5: links
    *table_of(
        [5],
        [
            ("shard leads out", MODELS, shard_link, WEIGHTS_ERROR, "a link that leads out"),
            ("weights lead out", MODELS, link(WEIGHTS), WEIGHTS_ERROR, "a link that leads out"),
            ("weights lead to another repository", BACKBONES, blobs_of_another, WEIGHTS_ERROR, "link that leads out"),
            ("config leads out", BACKBONES, link("config.json"), CONFIG_ERROR, "a link that leads out"),
            ("tokenizer leads out", TEXTS, link("tokenizer.json"), "TokenizerError", "a link that leads out"),
            (
                "tokenizer's config leads out",
                TEXTS,
                link("tokenizer_config.json"),
                "TokenizerError",
                "a link that leads out",
            ),
            ("modules lead out", ["encoder"], link("modules.json"), CONFIG_ERROR, "a link that leads out"),
            (
                "settings lead out",
                ["encoder"],
                link("config_sentence_transformers.json"),
                CONFIG_ERROR,
                "a link that leads out",
            ),
            (
                "a module's config leads out",
                ["encoder"],
                link("1_SpladePooling/config.json"),
                CONFIG_ERROR,
                "a link that leads out",
            ),
            ("README leads out", ["encoder"], both(file("README.md", "x"), link("README.md")), None, ""),
            ("index leads out", MODELS, both(index("one.safetensors"), link(INDEX)), WEIGHTS_ERROR, "leads out"),
            ("index's manifest leads out", ["index"], link("manifest.json"), "IndexCorruptError", "leads out"),
            ("checkpoint's list leads out", ["checkpoint"], link("MANIFEST.json"), WEIGHTS_ERROR, "leads out"),
            ("a link to itself", BACKBONES, link(WEIGHTS, WEIGHTS), WEIGHTS_ERROR, "cannot be opened"),
            ("a link to nothing", BACKBONES, link("config.json", "none.json"), CONFIG_ERROR, "link to nothing"),
            ("a link to a password file", BACKBONES, link("config.json", "/etc/passwd"), CONFIG_ERROR, "leads out"),
        ],
    ),
    # rows 6 and 7: an index at odds with its shards
    *table_of(
        [6],
        [
            ("a missing shard", MODELS, index("none.safetensors"), WEIGHTS_ERROR, "not there: 'none.safetensors'"),
            (
                "a shard not in the index",
                MODELS,
                two_shards(lambda found, folder: (folder / "model-00009-of-00009.safetensors").write_bytes(b"x")),
                WEIGHTS_ERROR,
                "not listed in the index: 'model-00009",
            ),
            ("an index of a list", MODELS, both(index("x"), file(INDEX, "[]")), WEIGHTS_ERROR, "JSON object"),
            ("an index of nothing", MODELS, both(index("x"), file(INDEX, "{}")), WEIGHTS_ERROR, "weight_map"),
            (
                "an empty map",
                MODELS,
                both(index("x"), file(INDEX, '{"weight_map": {}}')),
                WEIGHTS_ERROR,
                "weight_map",
            ),
            (
                "a tensor twice in the index",
                MODELS,
                both(index("x"), file(INDEX, '{"weight_map": {"a": "one.safetensors", "a": "one.safetensors"}}')),
                WEIGHTS_ERROR,
                "'a' is there twice",
            ),
            ("an index that is a pipe", MODELS, both(index("x"), pipe(INDEX)), WEIGHTS_ERROR, "regular file"),
            ("a huge index", MODELS, both(index("x"), hole(INDEX, 1 << 32)), WEIGHTS_ERROR, "not be larger"),
        ],
    ),
    *table_of(
        [7],
        [
            (
                "a tensor in the index alone",
                MODELS,
                index("one.safetensors", ghost="one.safetensors"),
                WEIGHTS_ERROR,
                "missing from one.safetensors.*'ghost'",
            ),
            (
                "a tensor in a shard alone",
                MODELS,
                two_shards(lambda found, folder: found.pop(next(iter(found)))),
                WEIGHTS_ERROR,
                "where the index does not have them",
            ),
            (
                "a tensor too many",
                MODELS,
                tensors(lambda found: found.update(extra=torch.ones(2))),
                WEIGHTS_ERROR,
                "extra",
            ),
            (
                "a tensor that is left aside",
                NO_INDEX,
                tensors(lambda found: found.update({"bert.embeddings.position_ids": torch.arange(64)[None]})),
                None,
                "",
            ),
        ],
    ),
    # rows 8 to 12: tensors that do not fit
    *table_of(
        [8],
        [
            ("names of DataParallel", NO_INDEX, renamed("module."), None, ""),
            ("names of a compiled model", NO_INDEX, renamed("_orig_mod."), None, ""),
            ("names of nobody", NO_INDEX, renamed("x."), WEIGHTS_ERROR, "missing"),
        ],
    ),
    Case("a missing tensor", (9,), MODELS, tensors(lambda found: found.pop(DENSE)), WEIGHTS_ERROR, DENSE),
    Case("an empty file of weights", (9,), MODELS, tensors(lambda found: found.clear()), WEIGHTS_ERROR, "missing"),
    *table_of(
        [10],
        [
            ("a row less", MODELS, cut_tensor("bert.embeddings.word_embeddings.weight"), WEIGHTS_ERROR, "word_embedd"),
            ("a smaller vocabulary", BACKBONES, config(vocab_size=50), WEIGHTS_ERROR, r"\b50\b"),
            ("a larger vocabulary", BACKBONES, config(vocab_size=5000), WEIGHTS_ERROR, "5000"),
            ("fewer biases", ["encoder", "masked"], cut_tensor("cls.predictions.bias"), WEIGHTS_ERROR, "predictions"),
        ],
    ),
    *(
        Case(f"a weight of {value}", (11,), MODELS, with_value(value), WEIGHTS_ERROR, "NaN or infinite")
        for value in (float("nan"), float("inf"), float("-inf"))
    ),
    *(
        Case(
            f"type {dtype}",
            (12,),
            MODELS,
            header(lambda found, dtype=dtype: found[DENSE].update(dtype=dtype)),
            WEIGHTS_ERROR,
            "has the type .* supported are",
        )
        for dtype in ("F8_E4M3", "F4", "I8", "U64", "f32", "")
    ),
    # rows 13 to 17, 20: files that lie about themselves
    *(
        Case(
            f"weights: {name}",
            (20,)
            if name in ("empty", "seven bytes") or "page" in name or "git lfs" in name or "pytorch" in name
            else (13,)
            if name.startswith("header")
            else (15,)
            if name == "a name twice"
            else (17,)
            if name.startswith("name")
            else (12,)
            if name.startswith("type")
            else (14,),
            ("masked", "sharded"),
            file(WEIGHTS, content),
            WEIGHTS_ERROR,
            says,
        )
        for name, (content, says) in BAD_SAFETENSORS.items()
        if not name.startswith("value")  # of tensors that the model does not have; see row 11
    ),
    *(
        Case(f"rows: {name}", (13, 14, 20), ("embeddings",), file("rows.safetensors", content), WEIGHTS_ERROR, says)
        for name, (content, says) in BAD_SAFETENSORS.items()
    ),
    Case("a tensor of a quarter terabyte", (14, 16), BACKBONES, huge_tensor, WEIGHTS_ERROR, ""),
    Case("many tensors", (16,), MODELS, file(WEIGHTS, many_tensors(10_001)), WEIGHTS_ERROR, "10001 tensors"),
    Case("a million tensors", (16,), BACKBONES, file(WEIGHTS, many_tensors(1_000_000)), WEIGHTS_ERROR, "its header"),
    Case(
        "a header of a gigabyte",
        (16,),
        BACKBONES,
        both(file(WEIGHTS, struct.pack("<Q", 1 << 30) + b"{"), hole(WEIGHTS, 1 << 31)),
        WEIGHTS_ERROR,
        "says its header has",
    ),
    # row 19: no file at all
    *(
        Case(f"{what.__name__} {name}", (19,), entries, what(name), error, says)
        for what in (pipe, room, door)
        for name, entries, error, says in (
            (WEIGHTS, MODELS, WEIGHTS_ERROR, "regular file|cannot be opened"),
            ("config.json", BACKBONES, CONFIG_ERROR, "regular file|cannot be opened"),
            ("modules.json", ["encoder"], CONFIG_ERROR, "regular file|cannot be opened"),
            ("config_sentence_transformers.json", ["encoder"], CONFIG_ERROR, "regular file|cannot be opened"),
            ("1_SpladePooling/config.json", ["encoder"], CONFIG_ERROR, "regular file|cannot be opened"),
            ("tokenizer.json", TEXTS, "TokenizerError", "regular file|cannot be opened"),
            ("tokenizer_config.json", TEXTS, "TokenizerError", "regular file|cannot be opened"),
            ("manifest.json", ["index"], "IndexCorruptError", "regular file|cannot be opened"),
            ("rows.safetensors", ["embeddings"], WEIGHTS_ERROR, "regular file|cannot be opened"),
            ("MANIFEST.json", ["checkpoint"], WEIGHTS_ERROR, "no MANIFEST|regular file|cannot be opened"),
        )
    ),
    Case("a device", (19,), MODELS, link(WEIGHTS, "/dev/zero"), WEIGHTS_ERROR, "a link that leads out"),
    Case("a device for a config", (19,), BACKBONES, link("config.json", "/dev/zero"), CONFIG_ERROR, "leads out"),
    # row 20, of the other files
    *(
        Case(f"{what} as {name}", (20,), entries, file(name, content), error, says)
        for what, content in (("a pointer", POINTER), ("a page", PAGE), ("nothing", b""))
        for name, entries, error, says in (
            ("config.json", BACKBONES, CONFIG_ERROR, "not valid JSON"),
            ("modules.json", ["encoder"], CONFIG_ERROR, "not valid JSON"),
            ("tokenizer.json", TEXTS, "TokenizerError", "not valid JSON"),
            ("manifest.json", ["index"], "IndexCorruptError", "not valid JSON"),
            ("MANIFEST.json", ["checkpoint"], WEIGHTS_ERROR, "not valid JSON"),
        )
    ),
    # rows 3, 14 and 19 in the list of a checkpoint, which has a right sha256 of itself
    *(
        Case(f"checkpoint lists {what}", (3, 4), ("checkpoint",), listed(files), WEIGHTS_ERROR, says)
        for what, files, says in (
            ("what is above", {"../secret": {"bytes": 1, "sha256": "0"}}, "must be relative"),
            ("a password file", {"/etc/passwd": {"bytes": 1, "sha256": "0"}}, "must be relative"),
            ("a number", {"a": 5}, "must have bytes and sha256"),
            ("nothing of a file", {"a": {}}, "must have bytes and sha256"),
            ("a file that is not there", {"a": {"bytes": 1, "sha256": "0"}}, "the file is missing"),
            ("a list", [], "altered"),
        )
    ),
    Case("an index whose files lie outside", (3,), ("index",), outside_arrays, "IndexCorruptError", "lists a file as"),
    # row 21: JSON that two parsers read in two ways
    *(
        Case(f"config: {what}", (21,), BACKBONES, harm, CONFIG_ERROR, says)
        for what, harm, says in (
            ("NaN", file("config.json", '{"model_type": "bert", "layer_norm_eps": NaN}'), "NaN is no JSON"),
            ("infinity", file("config.json", '{"model_type": "bert", "layer_norm_eps": -Infinity}'), "Infinity"),
            ("1e999", file("config.json", '{"model_type": "bert", "layer_norm_eps": 1e999}'), "too large"),
            ("a key twice", file("config.json", '{"model_type": "bert", "model_type": "bert"}'), "there twice"),
            ("deep", file("config.json", "[" * 200_000), "nested deeper"),
            ("deep objects", file("config.json", '{"a":' * 100_000), "nested deeper"),
            ("a mark", file("config.json", b'\xef\xbb\xbf{"model_type": "bert"}'), "byte order mark"),
            ("UTF-16", file("config.json", '{"model_type": "bert"}'.encode("utf-16")), "UTF-8"),
            ("a list", file("config.json", "[]"), "JSON object"),
            (
                "many digits",
                file("config.json", '{"model_type": "bert", "vocab_size": ' + "9" * 500_000 + "}"),
                "digit",
            ),
            ("a gigabyte", hole("config.json", 1 << 30), "larger than 1000000"),
            ("two megabytes", file("config.json", '{"a": "' + "x" * 2_000_000 + '"}'), "larger than 1000000"),
        )
    ),
    # rows 22 to 26: values of config.json
    *(
        Case(f"{name} is {value!r}", (22,), BACKBONES, config(**{name: value}), CONFIG_ERROR, name)
        for name, bad in (
            ("num_hidden_layers", (-1, 0, 10**6)),
            ("hidden_size", (-12, 0, 2**40)),
            ("vocab_size", (-1, 0, 10**12)),
            ("max_position_embeddings", (-1, 0, 10**10)),
            ("num_attention_heads", (-3, 0, 10**9)),
            ("intermediate_size", (-1, 10**12)),
            ("type_vocab_size", (-1, 10**12)),
            ("pad_token_id", (-1, 10**6)),
        )
        for value in bad
    ),
    Case("large in all ways", (22,), BACKBONES, config(hidden_size=65532, num_hidden_layers=256), WEIGHTS_ERROR, ""),
    *(
        Case(f"{name} is {value!r}", (23,), BACKBONES, config(**{name: value}), CONFIG_ERROR, name)
        for name in ("hidden_size", "num_hidden_layers", "layer_norm_eps", "hidden_dropout_prob", "initializer_range")
        for value in ("32", True, [32], {"a": 1}, None)
    ),
    *(
        Case(f"model type {value!r}", (23, 25), BACKBONES, config(model_type=value), CONFIG_ERROR, "model_type")
        for value in ([], {}, None, 5, "", "os.system", "../bert", "mamba")
    ),
    *(
        Case(f"{name} is {value!r}", (25,), BACKBONES, config(**{name: value}), CONFIG_ERROR, name)
        for name, value in (
            ("architectures", ["EvilModel"]),
            ("architectures", "BertForMaskedLM"),
            ("architectures", [["BertForMaskedLM"]]),
            ("hidden_act", "os.system"),
            ("hidden_act", "evil"),
            ("hidden_act", ["gelu"]),
            ("position_embedding_type", "evil"),
        )
    ),
    *(
        Case(f"{name} is {value!r}", (26,), BACKBONES, config(**{name: value}), CONFIG_ERROR, name)
        for name, value in (
            ("layer_norm_eps", 0),
            ("layer_norm_eps", -1e-5),
            ("hidden_dropout_prob", 2.0),
            ("hidden_dropout_prob", -0.1),
            ("attention_probs_dropout_prob", 1.0),
            ("initializer_range", -0.1),
            ("num_attention_heads", 5),
        )
    ),
    Case(
        "code is asked for",
        (24,),
        BACKBONES,
        both(
            evil_code,
            config(
                auto_map={"AutoModel": "modeling_evil.EvilModel", "AutoConfig": "org/evil--modeling_evil.EvilConfig"},
                trust_remote_code=True,
                _attn_implementation="org/evil-kernel:run",
                custom_pipelines={"evil": {"impl": "evil.Run"}},
                quantization_config={"quant_method": "evil"},
            ),
        ),
        None,
        "auto_map.*are ignored; nothing is imported",
    ),
    Case(
        "code is asked for by a tokenizer",
        (24,),
        TEXTS,
        both(
            evil_code,
            values(
                "tokenizer_config.json",
                auto_map={"AutoTokenizer": ["modeling_evil.Evil", None]},
                tokenizer_class="os.system",
                chat_template="{{ ''.__class__.__mro__ }}",
            ),
        ),
        None,
        "",
    ),
    # rows 27 to 29: modules.json
    *(
        Case(f"module type {name!r}", (27,), ("encoder",), both(evil_code, module(type=name)), CONFIG_ERROR, "type")  # type: ignore[arg-type]
        for name in (
            "os.system",
            "builtins.eval",
            "modeling_evil.Evil",
            "evil",
            "subprocess.Popen",
            "sentence_transformers.evil.Evil",
            "sentence_transformers.sparse_encoder.models.SpladePooling.__class__",
            "sparse_encoder.modules.SpladePooling",
            "torch.nn.Identity",
            "",
            None,
            7,
            ["os", "system"],
        )
    ),
    *(
        Case(f"module path {name!r}", (28,), ("encoder",), module(path=name), CONFIG_ERROR, "")  # type: ignore[arg-type]
        for name in ("../../", "..", "/etc", "a/../..", "C:\\x", "1_SpladePooling/../..", "x\0y", "x" * 2000, 5, None)
    ),
    Case(
        "a module's folder leads out",
        (28,),
        ("encoder",),
        link("1_SpladePooling"),
        CONFIG_ERROR,
        "a link that leads out",
    ),
    *(
        Case(f"modules: {what}", (29,), ("encoder",), modules(harm), CONFIG_ERROR, says)  # type: ignore[arg-type]
        for what, harm, says in (
            ("another order", lambda found: found.reverse(), "numbered"),
            ("a number twice", lambda found: found[1].update(idx=0), "numbered"),
            ("a true number", lambda found: found[1].update(idx=True), "numbered"),
            ("ten thousand", lambda found: found.extend([found[1]] * 5_000), "1 to 64"),
            ("none", lambda found: found.clear(), "1 to 64"),
            ("no text", lambda found: found.pop(0), "numbered"),
            ("no pooling", lambda found: found.pop(1), "must have a Pooling"),
            ("two texts", lambda found: found.append({**found[0], "idx": 2}), "must be the first"),
            ("a text for a module", lambda found: found.append("evil"), "must be an object"),
            ("a key too many", lambda found: found[1].update(evil=1), "unknown keys"),
            ("arguments", lambda found: found[1].update(kwargs={"a": 1}), "list of names"),
        )
    ),
    Case("modules of an object", (29,), ("encoder",), file("modules.json", "{}"), CONFIG_ERROR, "list of 1 to 64"),
    Case(
        "pooling that is a function",
        (27,),
        ("encoder",),
        file("1_SpladePooling/config.json", '{"pooling_strategy": "os.system"}'),
        CONFIG_ERROR,
        "pooling",
    ),
    Case(
        "an activation that is a function",
        (27,),
        ("encoder",),
        file("1_SpladePooling/config.json", '{"activation_function": "builtins.eval"}'),
        CONFIG_ERROR,
        "activation",
    ),
]
"""Rows 1 to 29 but 18, which needs a model that is open."""

assert os.sep == "/", "pipes, sockets and links are those of POSIX"
