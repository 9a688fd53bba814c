"""How often a text's nearest text in another language is its translation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from tqdm import tqdm

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.evaluation.checks import check_lengths, check_texts
from sparse_encoder.evaluation.embedding import EncodeOptions, sparsity
from sparse_encoder.evaluation.encoding_evaluator import Encoding, EncodingEvaluator, avg_flops
from sparse_encoder.evaluation.ranking import Ranking, rank_all
from sparse_encoder.evaluation.reporting import Call, announce, report
from sparse_encoder.evaluation.retrieval_model import EncodingModel
from sparse_encoder.similarity import cos_sim, pairwise_cos_sim

_SHOWN = 5
"""How many texts are shown for a wrong match."""


class SparseTranslationEvaluator(EncodingEvaluator):
    """Find for each text the nearest text of the other side, by cosine, and see whether it is its translation.

    ``src2trg_accuracy``, ``trg2src_accuracy`` and their mean, ``mean_accuracy``, the primary metric. An equal text at
    another place counts as the translation. Of equally near texts the first is taken. Besides, ``active_dims`` and
    ``sparsity_ratio`` of all texts.

    What the peer does not have, and neither the table nor the model's card is told: ``avg_flops``, the terms that a
    source and a target share by chance, ``postings_per_query``, the postings of an index over the other side that a
    text touches, ``milliseconds_per_query``, the time of a search for one, and ``milliseconds_per_text``, that to
    encode it.

    With an ``output_path`` a row is added to ``translation_evaluation[_{name}]_results.csv``.

    Args:
        source_sentences: Texts.
        target_sentences: The translation of each.
        show_progress_bar: Handed to the model.
        batch_size: Handed to the model.
        name: Starts the name of every metric and ends that of the file.
        print_wrong_matches: Print the sources whose nearest target is another one, with the best targets.
        write_csv: Write the row of results.
        max_active_dims: Most active terms of a text; ``None`` leaves it to the model.

    Raises:
        TypeError: If a text is no text, naming the row.
        ValueError: If the columns have different lengths or no rows.
    """

    def __init__(  # house: peer signature
        self,
        source_sentences: Iterable[str],
        target_sentences: Iterable[str],
        show_progress_bar: bool = False,
        batch_size: int = 16,
        name: str = "",
        print_wrong_matches: bool = False,
        write_csv: bool = True,
        max_active_dims: int | None = None,
    ) -> None:
        self.source_sentences = check_texts("source_sentences", source_sentences)
        self.target_sentences = check_texts("target_sentences", target_sentences)
        check_lengths({"source_sentences": self.source_sentences, "target_sentences": self.target_sentences})
        super().__init__(
            EncodeOptions(batch_size=batch_size, show_progress_bar=show_progress_bar, max_active_dims=max_active_dims)
        )
        self.name, self.write_csv, self.print_wrong_matches = name, write_csv, print_wrong_matches
        self.csv_file = f"translation_evaluation{'_' + name if name else ''}_results.csv"
        self.primary_metric = "mean_accuracy"

    def __call__(
        self, model: EncodingModel, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Measure a model; arguments and result as in :class:`BaseEvaluator`."""
        call = Call(output_path, epoch, steps)
        announce(self, call)
        encode = Encoding(self, model)
        source = encode("source_sentences", self.source_sentences)
        target = encode("target_sentences", self.target_sentences)
        started = time.perf_counter()
        forth = rank_all(source, target, _SHOWN if self.print_wrong_matches else 1, cos_sim)
        back = rank_all(target, source, 1, cos_sim)
        searching = {"milliseconds_per_query": 1000 * (time.perf_counter() - started) / (2 * len(source))}
        if self.print_wrong_matches:
            self._print_wrong(forth, source, target)
        accuracies = {
            "src2trg": _accuracy(forth, self.target_sentences),
            "trg2src": _accuracy(back, self.source_sentences),
        }
        metrics = {f"{direction}_accuracy": accuracy for direction, accuracy in accuracies.items()}
        metrics["mean_accuracy"] = sum(accuracies.values()) / 2
        self.sparsity_stats = terms = sparsity(source, target)
        flops = avg_flops([source], [target])
        touched = {"postings_per_query": flops["avg_flops"] * len(target)}  # the same both ways, as are the lengths
        self.costs = {**flops, **touched, **searching, **encode.costs()}
        return report(self, model, call, metrics | terms, accuracies | terms, costs=self.costs)

    def _print_wrong(self, rankings: Sequence[Ranking], source: SparseEmbeddings, target: SparseEmbeddings) -> None:
        true_scores = pairwise_cos_sim(source, target).tolist()
        texts = self.target_sentences
        for row, ranking in enumerate(rankings):
            best = int(ranking.positions[0])
            if texts[best] == texts[row]:
                continue
            lines = [
                f"\nIncorrect  : Source {row} is most similar to target {best} instead of target {row}",
                f"Source     : {self.source_sentences[row]}",
                f"Pred Target: {texts[best]} (Score: {ranking.scores[0]:.4f})",
                f"True Target: {texts[row]} (Score: {true_scores[row]:.4f})",
            ]
            hits = zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True)
            lines += [f"\t {place} (Score: {score:.4f}) {texts[place]}" for place, score in hits]
            tqdm.write("\n".join(lines))

    def get_config_dict(self) -> dict[str, Any]:  # plain values of several types, for the model card
        """Return the settings that belong into a model card."""
        return self.options.settings()


def _accuracy(rankings: Sequence[Ranking], texts: Sequence[str]) -> float:
    """Return how often the best text of a row is the row's own."""
    hits = sum(texts[int(ranking.positions[0])] == texts[row] for row, ranking in enumerate(rankings))
    return hits / len(texts)
