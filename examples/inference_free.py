"""Build an inference-free model: documents pass a transformer, a query is a look-up of one learned weight per word.

Encoding a query then costs next to nothing. The weights are the inverse document frequencies of a corpus, a text file
with one document per line; the saved model is untrained and ready to be.

    python examples/inference_free.py corpus.txt --model path/to/masked-language/checkpoint --output inference-free
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path

import torch

from sparse_encoder import SparseEncoder
from sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling, Transformer


def idf_weights(tokenizer: object, documents: list[str], vocabulary: int) -> torch.Tensor:
    """Return log(1 + N / (1 + df)) for every token of the vocabulary, (V,)."""
    batch = tokenizer.encode_batch(documents, add_special_tokens=False)  # type: ignore[attr-defined]
    counts = Counter(token for tokens in batch.input_ids for token in set(tokens))
    return torch.tensor([math.log(1 + len(documents) / (1 + counts[token])) for token in range(vocabulary)])


def main(arguments: list[str] | None = None) -> None:
    """Put the two routes together, look at a query, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--query", default="what is an inverted index")
    options = parser.parse_args(arguments)

    documents = options.corpus.read_text(encoding="utf-8").splitlines()
    transformer = Transformer(options.model, transformer_task="fill-mask")
    weights = idf_weights(transformer.tokenizer, documents, transformer.get_embedding_dimension() or 0)
    router = Router.for_query_document(
        query_modules=[SparseStaticEmbedding(transformer.tokenizer, weight=weights, frozen=False)],
        document_modules=[transformer, SpladePooling("max")],
    )
    model = SparseEncoder(modules=[router])
    query, answers = model.encode_query(options.query), model.encode_document(documents)
    print("query:", model.decode(query))
    best = int(model.similarity(query, answers).argmax())
    print("best:", documents[best][:100])
    model.save_pretrained(str(options.output))


if __name__ == "__main__":
    main()
