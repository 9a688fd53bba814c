"""Builds a tokenizer from the vocabulary files of the time before tokenizer.json: WordPiece and byte-level BPE.

Knows which tokenizer class of transformers means which of the two; knows no other file than these and no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from sparse_encoder.checkpoint.errors import TokenizerError
from sparse_encoder.checkpoint.json_files import read_json_object
from sparse_encoder.checkpoint.paths import read_limited, resolve_inside
from sparse_encoder.tokenizer_check import check_ids, rust_errors
from sparse_encoder.tokenizer_ends import Ends, set_ends

MAX_VOCABULARY_BYTES = 64_000_000
MAX_WORD_CHARACTERS = 100
"""Longer words are unknown to BERT's tokenizer."""
BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
MPNET_TOKENS = {**ROBERTA_TOKENS, "unk_token": "[UNK]"}
GPT2_TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
_UNSAID = ("", "PreTrained", "TokenizersBackend")
_LIKE_BERT = (*_UNSAID, "Albert", "Bert", "ConvBert", "DistilBert", "Electra", "Funnel", "MobileBert", "SqueezeBert")
_LIKE_ROBERTA = ("Bart", "LED", "Longformer", "Roberta")
_SENTENCE_PIECE = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
_SAVE_FIRST = "Load it once with transformers and save it, which writes a tokenizer.json"

Options = Mapping[str, Any]  # Any: tokenizer_config.json


def build_backend(folder: Path, options: Options, named: Mapping[str, str]) -> tuple[Backend, dict[str, str]]:
    """Build a tokenizer from vocabulary files.

    Args:
        folder: Where they are.
        options: ``tokenizer_config.json``.
        named: Special tokens by name, as far as the folder tells.

    Returns:
        The tokenizer and its special tokens by name.

    Raises:
        FileNotFoundError: If there are no vocabulary files.
        TokenizerError: If they cannot be used, or the tokenizer is of a kind that they do not describe.
    """
    class_name = str(options.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    if (folder / "vocab.txt").exists():
        path = resolve_inside(folder, "vocab.txt", error=TokenizerError)
        _check_class(class_name, (*_LIKE_BERT, "MPNet"), path)
        usual = MPNET_TOKENS if class_name == "MPNet" else BERT_TOKENS
        return _build_word_piece(path, options, usual, named)
    for name, merges_name in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / name).exists() and (folder / merges_name).exists():
            path = resolve_inside(folder, name, error=TokenizerError)
            _check_class(class_name, (*_UNSAID, *_LIKE_ROBERTA, "GPT2"), path)
            merges_path = resolve_inside(folder, merges_name, error=TokenizerError)
            vocabulary = read_json_object(path, max_bytes=MAX_VOCABULARY_BYTES, error=TokenizerError)
            check_ids(vocabulary, path)
            like_roberta = class_name in _LIKE_ROBERTA or (class_name in _UNSAID and "<mask>" in vocabulary)
            special = _special_tokens(ROBERTA_TOKENS if like_roberta else GPT2_TOKENS, named, vocabulary, path)
            prefix = bool(options.get("add_prefix_space", False))
            with rust_errors("cannot be used", path):
                backend = _byte_level(vocabulary, _read_merges(merges_path), special, prefix)
            _add_ends(backend, options, {**special, **named}, path)
            return backend, special
    for name in _SENTENCE_PIECE:
        if (folder / name).exists():
            raise TokenizerError("cannot build a tokenizer from this file", path=folder / name, hint=_SAVE_FIRST)
    raise FileNotFoundError(
        f"{folder} has no tokenizer: expected tokenizer.json, vocab.txt, or vocab.json and merges.txt"
    )


def _build_word_piece(
    path: Path, options: Options, usual: Mapping[str, str], named: Mapping[str, str]
) -> tuple[Backend, dict[str, str]]:
    lines = _read_lines(path)
    vocabulary = {token: number for number, token in enumerate(lines)}
    special = _special_tokens(usual, named, vocabulary, path)
    basic = options.get("do_basic_tokenize", True)
    with rust_errors("cannot be used", path):
        backend = Backend(
            models.WordPiece(vocabulary, unk_token=special["unk_token"], max_input_chars_per_word=MAX_WORD_CHARACTERS)
        )
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=basic and options.get("tokenize_chinese_chars", True),
            strip_accents=options.get("strip_accents") if basic else False,
            lowercase=basic and options.get("do_lower_case", True),
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        cls, sep = ((special[name], vocabulary[special[name]]) for name in ("cls_token", "sep_token"))
        if usual is MPNET_TOKENS:
            backend.post_processor = processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=False)
        else:
            backend.post_processor = processors.TemplateProcessing(
                single=[cls[0], "$A", sep[0]],
                pair=[f"{cls[0]}:0", "$A:0", f"{sep[0]}:0", "$B:1", f"{sep[0]}:1"],
                special_tokens=[cls, sep],
            )
        backend.decoder = decoders.WordPiece(prefix="##")
        _mark_special(backend, special)
    return backend, special


def _byte_level(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], special: Mapping[str, str], prefix: bool
) -> Backend:
    backend = Backend(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    if "cls_token" in special:
        cls, sep = special["cls_token"], special["sep_token"]
        backend.post_processor = processors.RobertaProcessing(
            (sep, vocabulary[sep]), (cls, vocabulary[cls]), trim_offsets=True, add_prefix_space=prefix
        )
    else:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
    _mark_special(backend, special)
    return backend


def _add_ends(backend: Backend, options: Options, special: Mapping[str, str], path: Path) -> None:
    """Put the begin and end tokens around texts that the configuration wants there; tokenizer.json says so itself."""
    flags = {name: options.get(f"add_{name}_token") for name in ("bos", "eos")}
    try:
        set_ends(
            backend,
            Ends(special.get("bos_token"), special.get("eos_token")),
            begin=True if flags["bos"] is True else None,
            end=True if flags["eos"] is True else None,
        )
    except ValueError as reason:
        raise TokenizerError(str(reason), path=path) from reason


def _mark_special(backend: Backend, special: Mapping[str, str]) -> None:
    """Keep special tokens whole in texts; byte-level ones like ``<mask>`` take the blank before them along."""
    mask = special.get("mask_token")
    for text in dict.fromkeys(special.values()):
        backend.add_special_tokens([AddedToken(text, special=True, normalized=False, lstrip=text == mask == "<mask>")])


def _special_tokens(
    usual: Mapping[str, str], named: Mapping[str, str], vocabulary: Mapping[str, int], path: Path
) -> dict[str, str]:
    special = {**usual, **{name: text for name, text in named.items() if name in usual}}
    for name, text in special.items():
        if text not in vocabulary:
            raise TokenizerError(f"the vocabulary lacks {text!r}", path=path, field=name)
    return special


def _check_class(name: str, known: tuple[str, ...], path: Path) -> None:
    if name not in known:
        raise TokenizerError(
            f"cannot build a {name}Tokenizer from this file, only {sorted(filter(None, known))}",
            path=path,
            hint=_SAVE_FIRST,
        )


def _read_merges(path: Path) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(_read_lines(path), start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise TokenizerError(f"line {number} must hold two tokens, got {line[:80]!r}", path=path)
        merges.append((left, right))
    return merges


def _read_lines(path: Path) -> list[str]:
    """Split at line feeds only: a vocabulary may hold any other separator as a token."""
    data = read_limited(path, max_bytes=MAX_VOCABULARY_BYTES, error=TokenizerError)
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as reason:
        raise TokenizerError(f"must be UTF-8: {reason.reason} at byte {reason.start}", path=path) from reason
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]
