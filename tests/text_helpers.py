"""Tiny tokenizers and awkward texts for the tests of the tokenizer."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from sparse_encoder.tokenizer import UNLIMITED, Tokenizer, TokenizerConfig

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "sparse",
    "##ly",
    "dense",
    "row",
    "##s",
    "a",
    "##a",
    "b",
    "##b",
    ".",
]
BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
PAD, UNK, CLS, SEP, MASK, SPARSE, LY, DENSE, ROW, S, A, AA, B, BB, DOT = range(15)

AWKWARD = [
    "Sparse retrieval, naïve café 東京.",
    "  leading   spaces\tand\nnewlines ",
    "[MASK] inside [SEP] text <mask> </s>",
    "İstanbul ǅ ß ﬁ",
    "👩‍👩‍👧‍👦 emoji 🇩🇪",
    "العربية עברית",
    "오늘 매우 맑다 날씨",
    "台北是台湾的首都。",
    "a" * 150 + " b",
    "\x00null\x07bell \u200b zero",
    "",
    "   ",
    "e\u0301 combining",
    "don't can't 1,234.56 $5 #tag @user http://x.y/z?a=b&c",
    "\u2028line\u2029sep\xa0nbsp",
]


def awkward_texts(number: int, seed: int = 0) -> list[str]:
    """Return the texts above and random ones."""
    draw = random.Random(seed)
    codes = [*range(32, 127), *range(32, 127), *range(0xA0, 0x250), *range(0x370, 0x400), *range(0x4E00, 0x4E40)]
    codes += [*range(0xAC00, 0xAC40), 0x300, 0x301, 0x200D, 0x1F600, 0xFFFD, 0x3000, 9, 10]
    return AWKWARD + ["".join(map(chr, draw.choices(codes, k=draw.randint(1, 60)))) for _ in range(number)]


def bert_backend(words: list[str] = WORDS) -> Backend:
    """Make a tokenizer in the way of BERT."""
    backend = Backend(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single=["[CLS]", "$A", "[SEP]"],
        pair=["[CLS]:0", "$A:0", "[SEP]:0", "$B:1", "[SEP]:1"],
        special_tokens=[("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))],
    )
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([word for word in words if word.startswith("[")])
    return backend


def bert_tokenizer(
    *, model_max_length: int = UNLIMITED, padding_side: str = "right", truncation_side: str = "right"
) -> Tokenizer:
    """Make a tokenizer of 15 tokens in the way of BERT."""
    config = TokenizerConfig(
        special_tokens=BERT,
        model_max_length=model_max_length,
        padding_side=padding_side,
        truncation_side=truncation_side,
    )
    return Tokenizer(bert_backend(), config)


def write_folder(folder: Path, content: object, **files: object) -> Path:
    """Write a tokenizer.json and other files, ``config`` for tokenizer_config.json, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    for name, value in files.items():
        (folder / f"{'tokenizer_config' if name == 'config' else name}.json").write_text(json.dumps(value))
    return folder


LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
LLAMA_PIECES = ["▁", "s", "p", "a", "r", "e", "d", "n", ".", "▁s", "pa", "▁spa", "re", "▁spare", "▁a", "▁d", "en", "se"]
LLAMA_MERGES = [("▁", "s"), ("p", "a"), ("▁s", "pa"), ("r", "e"), ("▁spa", "re"), ("▁", "a"), ("▁", "d"), ("e", "n")]


def llama_backend(*, bos: bool = True) -> Backend:
    """Make a byte-pair tokenizer with bytes to fall back on, of 277 tokens, in the way of the first Llamas."""
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", *bytes_, *LLAMA_PIECES])}
    merges = [*LLAMA_MERGES, ("s", "e")]
    backend = Backend(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
        )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def llama_tokenizer(*, bos: bool = True, padding_side: str = "right") -> Tokenizer:
    """Make a tokenizer of :func:`llama_backend`, which has no padding token."""
    config = TokenizerConfig(special_tokens=LLAMA, has_token_type_ids=False, padding_side=padding_side)
    return Tokenizer(llama_backend(bos=bos), config)
