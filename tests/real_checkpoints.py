"""Decoders with real weights, as folders in the layout of Hugging Face, made from what the fixtures hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixture_files import fixture_path
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from torch import Tensor

PROMPT, PROMPT_IDS = "Once upon a time", [1, 9038, 2501, 263, 931]
STORIES_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FIRST_BYTE, FIRST_WORD = 3, 259
"""Ids of the tokens for single bytes, and of those for text."""


def write_stories(folder: Path, *, permuted: bool = True) -> Path:
    """Write stories15M, a Llama of 15 million parameters, with its tokenizer.

    Args:
        folder: A new folder.
        permuted: Whether rows of queries and keys are put in the order of Hugging Face's layout, first halves before
            second halves. The fixture has them interleaved under the same names, and a model of them writes worse.
    """
    folder.mkdir(parents=True)
    source = fixture_path("stories15M")
    with np.load(source / "stories15M.model.npz", allow_pickle=False) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    assert torch.equal(tensors.pop("lm_head.weight"), tensors["model.embed_tokens.weight"])
    for name, tensor in tensors.items():
        if permuted and name.endswith(("q_proj.weight", "k_proj.weight")):
            tensors[name] = halves(tensor, heads=STORIES_CONFIG["num_attention_heads"])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(STORIES_CONFIG))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    tables = json.loads((source / "tokenizer.model.np").read_text(encoding="utf-8"))
    stories_tokenizer(tables["tokens"], tables["scores"]).save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 256}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def halves(weight: Tensor, *, heads: int) -> Tensor:
    """Reorder the rows of each head, (H * K, D), from pairs of neighbours to first and second halves."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def stories_tokenizer(tokens: list[str], scores: list[float]) -> Tokenizer:
    """Build the byte-pair tokenizer with SentencePiece's spelling: the better a token's score, the sooner it merges."""
    words = [token.replace(" ", "▁") for token in tokens]
    words[FIRST_BYTE:FIRST_WORD] = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {word: number for number, word in enumerate(words)}
    assert len(vocabulary) == len(words)
    merges = []
    for word in sorted(words[FIRST_WORD:], key=lambda each: -scores[vocabulary[each]]):
        cuts = [(word[:cut], word[cut:]) for cut in range(1, len(word))]
        known = [(left, right) for left, right in cuts if left in vocabulary and right in vocabulary]
        merges += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spaces, bytes_of = decoders.Replace("▁", " "), decoders.ByteFallback()
    made.decoder = decoders.Sequence([spaces, bytes_of, decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    made.add_special_tokens([AddedToken(word, normalized=False) for word in words[:FIRST_BYTE]])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return made


def write_microbes(folder: Path) -> Path:
    """Write MGM, a GPT-2 of genera of microbes, whose pickle was saved from a GPU, as safetensors."""
    folder.mkdir(parents=True)
    source = fixture_path("microformer-mgm")
    for name in ("config.json", "generation_config.json"):
        shutil.copy(source / name, folder / name)
    tensors = torch.load(source / "pytorch_model.bin", weights_only=True, map_location="cpu")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder
