"""What the quickstart shows: a table, answers with the terms that led to them, and a prompt to search at."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

from sparse_encoder.cli.measuring import encode_query
from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.encoding.inspection import WeightedTerms
from sparse_encoder.model import SparseEncoder
from sparse_encoder.search import SparseIndex

TOP_K = 5
MAX_TERMS = 8
WIDTH = 110
_COLUMNS = (
    ("nDCG@10", "ndcg@10", "{:.3f}"),
    ("MRR@10", "mrr@10", "{:.3f}"),
    ("Recall@100", "recall@100", "{:.3f}"),
    ("terms/query", "query_terms", "{:.1f}"),
    ("terms/document", "document_terms", "{:.1f}"),
    ("ms/query", "ms_per_query", "{:.2f}"),
)


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Lay out figures as :func:`~sparse_encoder.cli.measuring.measure` gives them, one line per name."""
    names = max(len(name) for name in rows)
    lines = ["  ".join([" " * names, *(title for title, _, _ in _COLUMNS)])]
    for name, figures in rows.items():
        cells = (f"{form.format(figures[key]):>{len(title)}}" for title, key, form in _COLUMNS)
        lines.append("  ".join([f"{name:<{names}}", *cells]))
    return "\n".join(lines)


class Terms(NamedTuple):
    """The active terms of a text with their weights, the heaviest first.

    Attributes:
        own: Those that are tokens of the text.
        added: Those that are not: what expansion added.
    """

    own: WeightedTerms
    added: WeightedTerms


def terms_of(model: SparseEncoder, text: str, embedding: SparseEmbeddings) -> Terms:
    """Tell the terms that a text holds from those that expansion added.

    Args:
        model: What the text was encoded by.
        text: The text.
        embedding: Its term weights, (V,).
    """
    tokens = set(model.tokenizer.tokenize(text))
    terms = Terms([], [])
    for pair in cast("WeightedTerms", model.decode(embedding)):  # of one embedding
        (terms.own if pair[0] in tokens else terms.added).append(pair)
    return terms


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchEngine:
    """A model, the index it made, and the texts that are in it."""

    model: SparseEncoder
    index: SparseIndex
    texts: Mapping[str, str]
    """Documents by id."""

    def answer(self, query: str, *, expected: str | None = None) -> str:
        """Search, and lay out the terms of the query and what was found.

        Args:
            query: What is asked.
            expected: Id of the right document, which gets a star.
        """
        embedding = encode_query(self.model, query)
        own, added = terms_of(self.model, query, embedding)
        lines = [f"   its own terms: {_weights(own)}", f"   added by expansion: {_weights(added)}"]
        (hits,) = self.index.search(embedding, top_k=TOP_K, fingerprint=self.model.fingerprint)
        if not hits:
            lines.append("   no document has any of these terms")
        for rank, hit in enumerate(hits, start=1):
            mark = "*" if hit.id == expected else " "
            found = f"{hit.score:6.2f}  {hit.id}: {' '.join(self.texts[hit.id].split())}"
            lines.append(f" {mark} {rank}. {textwrap.shorten(found, WIDTH, placeholder=' ...')}")
        return "\n".join(lines)

    def prompt(self) -> None:
        """Read queries from the terminal and answer them, until an empty line, the end of the input or Ctrl-C."""
        print("\nSearch the docstrings; an empty line leaves.")
        while True:
            try:
                query = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                print()
                return
            if not query:
                return
            print(self.answer(query))


def _weights(terms: WeightedTerms) -> str:
    shown = ", ".join(f"{term} {weight:.2f}" for term, weight in terms[:MAX_TERMS]) or "none"
    return f"{shown} and {len(terms) - MAX_TERMS} more" if len(terms) > MAX_TERMS else shown
