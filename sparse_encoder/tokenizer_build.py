"""Builds a tokenizer from the vocabulary files of the time before tokenizer.json: WordPiece and byte-level BPE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from sparse_encoder.checkpoint.errors import TokenizerError
from sparse_encoder.checkpoint.json_files import read_json_object
from sparse_encoder.checkpoint.paths import read_limited
from sparse_encoder.tokenizer_check import rust_errors

MAX_VOCABULARY_BYTES = 64_000_000


def token_text(value: object) -> str | None:
    """Return the text of a special token: a string, or the object with ``content`` that transformers 4 wrote."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def build_backend(
    folder: Path,
    raw: Mapping[str, Any],  # Any: JSON
    named: Mapping[str, str],
) -> tuple[Backend, dict[str, str]]:
    """Build a tokenizer from vocabulary files.

    Args:
        folder: Where they are.
        raw: ``tokenizer_config.json``.
        named: Special tokens by name, as far as the folder tells.

    Returns:
        The tokenizer and the special tokens by name that it took.

    Raises:
        FileNotFoundError: If there are no vocabulary files.
        TokenizerError: If they cannot be used.
    """
    if (folder / "vocab.txt").exists():
        return _build_word_piece(folder / "vocab.txt", raw, named)
    for vocabulary, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / vocabulary).exists() and (folder / merges).exists():
            return _build_byte_level(folder / vocabulary, folder / merges, raw, named)
    names = "tokenizer.json, vocab.txt, or vocab.json with merges.txt"
    raise FileNotFoundError(f"{folder} has no tokenizer: expected {names}")


def _build_word_piece(
    path: Path,
    raw: Mapping[str, Any],  # Any: JSON
    named: Mapping[str, str],
) -> tuple[Backend, dict[str, str]]:
    lines = _read_text(path).split("\n")
    if lines[-1] == "":
        lines.pop()
    vocabulary = {token.rstrip("\r"): number for number, token in enumerate(lines)}
    usual = {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    special = {**usual, **{name: text for name, text in named.items() if name in usual}}
    _require(special, vocabulary, path)
    with rust_errors("cannot be used", path):
        backend = Backend(models.WordPiece(vocabulary, unk_token=special["unk_token"], max_input_chars_per_word=100))
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=raw.get("tokenize_chinese_chars", True),
            strip_accents=raw.get("strip_accents"),
            lowercase=raw.get("do_lower_case", True),
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        cls, sep = special["cls_token"], special["sep_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
        )
        backend.decoder = decoders.WordPiece(prefix="##")
        backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special.values()])
    return backend, special


def _build_byte_level(
    path: Path,
    merges_path: Path,
    raw: Mapping[str, Any],  # Any: JSON
    named: Mapping[str, str],
) -> tuple[Backend, dict[str, str]]:
    vocabulary = read_json_object(path, max_bytes=MAX_VOCABULARY_BYTES, error=TokenizerError)
    merges = [tuple(line.split(" ")) for line in _read_text(merges_path).split("\n") if line and line[:8] != "#version"]
    if any(len(merge) != 2 for merge in merges):
        raise TokenizerError("each line must hold two tokens", path=merges_path)
    like_roberta = _is_like_roberta(str(raw.get("tokenizer_class") or ""), vocabulary, path)
    usual = _ROBERTA_TOKENS if like_roberta else _GPT2_TOKENS
    special = {**usual, **{name: text for name, text in named.items() if name in usual}}
    _require(special, vocabulary, path)
    prefix = bool(raw.get("add_prefix_space", False))
    with rust_errors("cannot be used", path):
        backend = Backend(models.BPE(vocabulary, merges))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        backend.decoder = decoders.ByteLevel()
        if like_roberta:
            pair = [(special[name], vocabulary[special[name]]) for name in ("sep_token", "cls_token")]
            backend.post_processor = processors.RobertaProcessing(*pair, trim_offsets=True, add_prefix_space=prefix)
        else:
            backend.post_processor = processors.ByteLevel(trim_offsets=False)
        tokens = {
            text: AddedToken(text, special=True, normalized=False, lstrip=text == special.get("mask_token"))
            for text in special.values()
        }
        backend.add_special_tokens(list(tokens.values()))
    return backend, special


_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_GPT2_TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def _is_like_roberta(class_name: str, vocabulary: Mapping[str, object], path: Path) -> bool:
    name = class_name.removesuffix("Fast").removesuffix("Tokenizer")
    if name in ("Roberta", "Bart", "Longformer", "LED"):
        return True
    if name == "GPT2":
        return False
    if name in ("", "PreTrained", "TokenizersBackend"):
        return "<mask>" in vocabulary
    raise TokenizerError(
        f"cannot build a {class_name} from vocabulary files", path=path, hint="Save it once as tokenizer.json"
    )


def _require(special: Mapping[str, str], vocabulary: Mapping[str, object], path: Path) -> None:
    for name, text in special.items():
        if text not in vocabulary:
            raise TokenizerError(f"the vocabulary lacks {text!r}", path=path, field=name)


def _read_text(path: Path) -> str:
    data = read_limited(path, max_bytes=MAX_VOCABULARY_BYTES, error=TokenizerError)
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as reason:
        raise TokenizerError(f"must be UTF-8: {reason.reason} at byte {reason.start}", path=path) from reason
