"""Export a sparse encoder as one ONNX graph, pooling included, and search with it: the serving side needs no torch.

The corpus is a text file with one document per line; its lines are numbered from 1.

    pip install 'sparse-encoder[onnx]'
    python examples/export_and_serve.py corpus.txt --model path/to/splade --output served --query "an inverted index"
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sparse_encoder import SparseEncoder, SparseIndex


def main(arguments: list[str] | None = None) -> None:
    """Export, open what was written, and answer the queries with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--model", required=True, help="a SPLADE model, or a masked-language checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="a folder for the model and its graph")
    parser.add_argument("--query", action="append", required=True, help="may be given more than once")
    parser.add_argument("--top-k", type=int, default=5)
    options = parser.parse_args(arguments)

    SparseEncoder(options.model, device="cpu").export_onnx(options.output)
    served = SparseEncoder(str(options.output), backend="onnx")

    documents = options.corpus.read_text(encoding="utf-8").splitlines()
    ids = [str(number) for number in range(1, len(documents) + 1)]
    index = SparseIndex.build(served.encode_document(documents), ids=ids)
    results = index.search(served.encode_query(options.query), top_k=options.top_k)
    for query, hits in zip(options.query, results, strict=True):
        print(query)
        for hit in hits:
            print(f"  {hit.score:8.3f}  {hit.id}: {documents[int(hit.id) - 1][:100]}")


if __name__ == "__main__":
    main()
