"""The best documents of a corpus that comes chunk by chunk, and what finding them costs; knows ids, no texts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.active_terms import ActiveTerms
from sparse_encoder.evaluation.ranking import EMPTY, Ranking, ScoreError, ScoreFunction, merge, searcher


class CorpusRanking:
    """Rank the documents of a corpus for queries, under several score functions; equal scores are in order of the ids.

    Args:
        queries: (N, V).
        query_ids: Of the queries, for errors.
        ids: Of all documents of the corpus, sorted.
        functions: By name.
        top_k: Most documents of a ranking.
        named: Whether the names of the functions are those of similarities.
    """

    def __init__(
        self,
        queries: SparseEmbeddings,
        query_ids: Sequence[str],
        ids: Sequence[str],
        functions: Mapping[str, ScoreFunction],
        *,
        top_k: int,
        named: bool,
    ) -> None:
        self.queries = queries
        self.query_terms, self.corpus_terms = ActiveTerms(), ActiveTerms()
        self.query_terms.add(queries)
        self.rankings = {name: [EMPTY] * len(queries) for name in functions}
        self._query_ids, self._ids, self._functions, self._top_k, self._named = query_ids, ids, functions, top_k, named
        self._seconds = 0.0

    def add(self, documents: SparseEmbeddings) -> None:
        """Rank the next documents of the corpus among those before, (M, V).

        Raises:
            ValueError: If a score is not finite, naming query and document.
        """
        done = self.corpus_terms.num_rows
        counted = False
        for name, function in self._functions.items():
            search = searcher(self.queries, documents, function, name if self._named else None)
            if search.built is not None and not counted:
                self.corpus_terms.add_counts(len(documents), search.built.document_frequencies)
                counted = True
            started = time.perf_counter()
            try:
                found = search.rank(self._top_k)
            except ScoreError as error:
                query, document = self._query_ids[error.query], self._ids[done + error.document]
                raise ValueError(
                    f"scores must be finite, score function {name!r} gives query {query!r} and document {document!r} "
                    f"{error.score}"
                ) from error
            self._seconds += time.perf_counter() - started
            moved = [Ranking(ranking.positions + done, ranking.scores) for ranking in found]
            pairs = zip(self.rankings[name], moved, strict=True)
            self.rankings[name] = [merge(best, rival, self._top_k) for best, rival in pairs]
        if not counted:
            self.corpus_terms.add(documents)

    def ids(self, name: str, without: Sequence[str] | None = None) -> Iterator[list[str]]:
        """Yield for each query the ids of the documents found for it, best first; arguments as of :meth:`runs`."""
        for row, ranking in enumerate(self.rankings[name]):
            found = list(map(self._ids.__getitem__, ranking.positions.tolist()))
            if without is not None:
                found = [each for each in found if each != without[row]][: self._top_k - 1]
            yield found

    def runs(self, name: str, without: Sequence[str] | None = None) -> Iterator[dict[str, float]]:
        """Yield for each query the scores of the documents found for it, best first.

        Args:
            name: Of the score function.
            without: An id for each query that it must not find; one more document was then asked for than is returned.
        """
        for row, ranking in enumerate(self.rankings[name]):
            ids = [self._ids[position] for position in ranking.positions.tolist()]
            run = dict(zip(ids, ranking.scores.tolist(), strict=True))
            if without is not None:
                run.pop(without[row], None)
                run = dict(list(run.items())[: self._top_k - 1])
            yield run

    def sparsity(self) -> dict[str, float]:
        """Return the mean number of active terms of queries and documents, and what follows from it, by name."""
        return {
            "query_active_dims": self.query_terms.active_dims,
            "query_sparsity_ratio": self.query_terms.sparsity_ratio,
            "corpus_active_dims": self.corpus_terms.active_dims,
            "corpus_sparsity_ratio": self.corpus_terms.sparsity_ratio,
            "avg_flops": self.query_terms.flops(self.corpus_terms),
        }

    def costs(self) -> dict[str, float]:
        """Return what a query costs: the postings of its terms, and the milliseconds of a search.

        Postings of a document with the query's own id are among them, also where it is then left out of the ranking:
        an index goes through them to find it. The time is that of this evaluation: all queries at once, under every
        score function, without encoding and indexing.
        """
        return {
            "postings_per_query": self.query_terms.flops(self.corpus_terms) * self.corpus_terms.num_rows,
            "milliseconds_per_query": 1000 * self._seconds / len(self.queries),
        }
