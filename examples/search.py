"""Encode a corpus, index it, and answer queries: with a model, or with BM25 for comparison.

The corpus is a text file with one document per line; its lines are numbered from 1.

    python examples/search.py corpus.txt --model path/or/name --query "what is an inverted index"
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sparse_encoder import BM25, SparseEncoder, SparseIndex


def main(arguments: list[str] | None = None) -> None:
    """Print the best lines for every query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--model", help="a folder or a hub name; BM25 when it is left out")
    parser.add_argument("--query", action="append", required=True, help="may be given more than once")
    parser.add_argument("--top-k", type=int, default=5)
    options = parser.parse_args(arguments)

    documents = options.corpus.read_text(encoding="utf-8").splitlines()
    encoder = SparseEncoder(options.model) if options.model else BM25().fit(documents)
    ids = [str(number) for number in range(1, len(documents) + 1)]
    index = SparseIndex.build(encoder.encode_document(documents), ids=ids)
    results = index.search(encoder.encode_query(options.query), top_k=options.top_k)
    for query, hits in zip(options.query, results, strict=True):
        print(query)
        for hit in hits:
            print(f"  {hit.score:8.3f}  {hit.id}: {documents[int(hit.id) - 1][:100]}")


if __name__ == "__main__":
    main()
