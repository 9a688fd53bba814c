"""Small random models in folders, without the peer: a vocabulary, a tokenizer, a BERT, texts of mixed length."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_TEXT = """
rain sun cloud river stone bread flour water oven mill search query index term weight sparse dense vector model
token text word meaning cat dog bird fish tree leaf root seed the of and in to is for with on by from at as it
"""
WORDS = _TEXT.split()
PIECES = ["##s", "##ing", "##ed", "##er", "##ly", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "aeinorst")]
VOCABULARY = list(dict.fromkeys([*SPECIAL, *WORDS, *PIECES]))


def write_tokenizer(folder: Path, *, model_max_length: int = 64) -> None:
    """Write a WordPiece tokenizer over :data:`VOCABULARY`."""
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(vocab=ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": model_max_length, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def bert_config(
    *, width: int = 12, layers: int = 2, heads: int = 3, positions: int = 64, vocabulary: int = len(VOCABULARY)
) -> dict[str, object]:
    """Return the ``config.json`` of a small BERT without dropout."""
    return {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * width,
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "initializer_range": 0.3,
    }


def write_masked_language_model(folder: Path, *, seed: int = 3, config: dict[str, object] | None = None) -> Path:
    """Write a checkpoint as the hub has them: weights with a masked-language head, a config, a tokenizer."""
    config = config or bert_config()
    torch.manual_seed(seed)
    model = MaskedLanguageModel.from_config(config)
    with torch.no_grad():
        model.head.bias.normal_(-1.0, 0.5)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    write_tokenizer(folder, model_max_length=int(str(config["max_position_embeddings"])))
    return folder


def write_encoder(folder: Path, *, seed: int = 4, config: dict[str, object] | None = None) -> Path:
    """Write a checkpoint without a head."""
    config = {**(config or bert_config()), "architectures": ["BertModel"]}
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    EncoderModel.from_config(config).save_pretrained(folder)
    write_tokenizer(folder, model_max_length=int(str(config["max_position_embeddings"])))
    return folder


def mixed_texts(count: int, *, seed: int = 5, longest: int = 70) -> list[str]:
    """Make texts of 1 to ``longest`` words, most of them short."""
    rng = random.Random(seed)
    lengths = [max(1, min(longest, int(rng.expovariate(6 / longest)) + 1)) for _ in range(count)]
    return [" ".join(rng.choice(WORDS) for _ in range(length)) for length in lengths]
