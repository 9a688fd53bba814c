"""Let a causal language model write, and print each word as soon as it is there.

    python examples/tell_a_story.py --model path/or/name --prompt "Once upon a time"

Without a model a tiny Llama learns one story by heart first, which takes a few seconds and no network.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from tqdm.auto import trange

from sparse_encoder.generation import CausalLanguageModel, TextStreamer
from sparse_encoder.tokenizer import Tokenizer

STORY = (
    "Once upon a time, a small lamp stood at the edge of the sea. Every night it lit the way home for the boats. "
    "One night a storm came and blew it out. The boats stayed together, and each one sang, so that none was lost. "
    "In the morning they brought the lamp new oil, and a glass against the wind."
)
END = "<|end|>"


def learn_by_heart(folder: Path, *, steps: int) -> None:
    """Write a tokenizer and a tiny Llama that was trained on one story to a folder."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([STORY], vocab_size=330, special_tokens=[END], show_progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END, "pad_token": END}), encoding="utf-8")
    torch.manual_seed(0)
    model = CausalLanguageModel.from_config(
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "bos_token_id": None,
            "eos_token_id": tokenizer.token_to_id(END),
            "pad_token_id": tokenizer.token_to_id(END),
        }
    )
    ids = torch.tensor([[*tokenizer.encode(STORY).ids, tokenizer.token_to_id(END)]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in trange(steps, desc="learning a story", unit="step", leave=False):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


def main(arguments: list[str] | None = None) -> None:
    """Open a model, and let it go on from the prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or a hub name; a tiny one is trained when it is left out")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, help="draw the words; the likeliest ones when it is left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=150, help="of the tiny model's training")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as scratch:
        if options.model is None:
            learn_by_heart(Path(scratch), steps=options.steps)
        model = CausalLanguageModel.from_pretrained(options.model or scratch).eval()
        tokenizer = Tokenizer.from_pretrained(options.model or scratch)
    drawn = {} if options.temperature is None else {"do_sample": True, "temperature": options.temperature}
    model.generate(
        torch.tensor([tokenizer.encode(options.prompt)]),
        max_new_tokens=options.max_new_tokens,
        streamer=TextStreamer(tokenizer, skip_special_tokens=True),
        generator=torch.Generator().manual_seed(options.seed),
        **drawn,
    )


if __name__ == "__main__":
    main()
