"""What 8 bits change: the embeddings of some texts by two graphs, compared. Knows no operator.

Axes: N texts, V terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.checkpoint.graph_names import GRAPH_FILE, GRAPH_FOLDER
from sparse_encoder.serving.arguments import ModelArguments
from sparse_encoder.serving.encoder import OnnxSparseEncoder
from sparse_encoder.serving.folder import read_folder
from sparse_encoder.serving.onnx_file import check_onnx_file

if TYPE_CHECKING:
    from sparse_encoder.evaluation import SentenceEvaluator

TOP_TERMS = 64
"""Of the heaviest terms of a text, how many are compared at most."""
SENTENCES = (
    "The weather is lovely today.",
    "It has been raining in the north of the country since Monday.",
    "How do I reset the password of my account?",
    "Water boils at a lower temperature on high mountains.",
    "The committee will publish its report on energy prices next week.",
    "A recipe for bread needs flour, water, salt, yeast and time.",
    "Which river flows through Vienna, Budapest and Belgrade?",
    "Sparse vectors can be searched with an inverted index.",
    "The patient was treated with antibiotics for ten days.",
    "Two defendants were acquitted because of a lack of evidence.",
    "The new engine uses less fuel and is quieter than the old one.",
    "She plays the violin in an orchestra and teaches children on Saturdays.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationReport:
    """Tell what 8 bits have changed."""

    file_name: str
    """The graph in the model's folder, for ``model_kwargs={"file_name": ...}``; of several the first."""
    paths: tuple[Path, ...]
    """All graphs that were written."""
    bytes_before: int
    bytes_after: int
    num_texts: int
    """Texts that were compared."""
    cosine: float
    """Mean cosine of a text's embedding with that of the unquantised graph."""
    lowest_cosine: float
    """Of the text that has changed most."""
    term_overlap: float
    """Mean share of a text's heaviest terms, at most 64, that stay among the heaviest."""
    score_error: float
    """Mean change of the dot products between all texts, relative to their mean size."""
    metric: str | None = None
    """What the evaluator calls its main figure."""
    metric_before: float | None = None
    metric_after: float | None = None

    def __str__(self) -> str:
        """Say it in a few lines."""
        lines = [
            f"{self.file_name}: {self.bytes_after / 1e6:.1f} MB instead of {self.bytes_before / 1e6:.1f} MB",
            f"cosine {self.cosine:.5f} on average, {self.lowest_cosine:.5f} at worst, over {self.num_texts} texts",
            f"{self.term_overlap:.1%} of the heaviest terms stay; scores change by {self.score_error:.2%} on average",
        ]
        if self.metric is not None and self.metric_before is not None and self.metric_after is not None:
            change = self.metric_after - self.metric_before
            lines.append(f"{self.metric}: {self.metric_after:.4f} instead of {self.metric_before:.4f} ({change:+.4f})")
        return "\n".join(lines)


def graphs_of(folder: Path) -> dict[str | None, Path]:
    """Return the graph of each route; one that serving reads from a table has none.

    Raises:
        FileNotFoundError: If a graph is not there, or no route needs one.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; SparseEncoder(name).export_onnx(folder) writes one")
    names = [name for name, route in read_folder(folder, {}).routes.items() if route.weights is None]
    graphs = {name: folder / GRAPH_FOLDER / (name or "") / GRAPH_FILE for name in names}
    if not graphs or not all(path.exists() for path in graphs.values()):
        missing = [path.relative_to(folder).as_posix() for path in graphs.values() if not path.exists()]
        told = " and ".join(missing) or "route with a graph"
        raise FileNotFoundError(f"{folder} has no {told}; SparseEncoder(folder).export_onnx(folder) writes graphs")
    return graphs


def compare_graphs(
    folder: Path,
    graphs: Mapping[str | None, Path],
    quantized: str,
    *,
    texts: Sequence[str],
    evaluator: SentenceEvaluator | None,
) -> QuantizationReport:
    """Encode texts with the graphs of a folder, before and after.

    Args:
        folder: The model.
        graphs: Its graph for each route.
        quantized: Name of the same graphs in 8 bits, each beside the other.
        texts: What is encoded, by each of these routes, as documents where there are none.
        evaluator: Run on both.
    """
    before, after = list(graphs.values()), [path.with_name(quantized) for path in graphs.values()]
    models = [_open(folder, paths[0]) for paths in (before, after)]
    old, new = (np.concatenate([_encode(model, texts, route) for route in graphs]) for model in models)
    cosines = _cosines(old, new)
    scores_old, scores_new = old @ old.T, new @ new.T
    figures = [None if evaluator is None else _main_figure(model, evaluator) for model in models]
    named = figures[0] or (None, None)
    return QuantizationReport(
        file_name=_inside(folder, after[0]),
        paths=tuple(after),
        bytes_before=sum(_size(path) for path in before),
        bytes_after=sum(_size(path) for path in after),
        num_texts=len(texts),
        cosine=float(cosines.mean()),
        lowest_cosine=float(cosines.min()),
        term_overlap=float(np.mean([_overlap(one, other) for one, other in zip(old, new, strict=True)])),
        score_error=float(np.abs(scores_new - scores_old).mean() / max(float(np.abs(scores_old).mean()), 1e-12)),
        metric=named[0],
        metric_before=named[1],
        metric_after=None if figures[1] is None else figures[1][1],
    )


def _open(folder: Path, graph: Path) -> OnnxSparseEncoder:
    options = {"file_name": f"{GRAPH_FOLDER}/{graph.name}", "provider": "CPUExecutionProvider"}
    return OnnxSparseEncoder(ModelArguments(name=str(folder), model_kwargs=options))


def _encode(model: OnnxSparseEncoder, texts: Sequence[str], route: str | None) -> NDArray[Any]:  # Any: floating
    if route is None:
        found: NDArray[Any] = model.encode_document(list(texts), show_progress_bar=False).numpy()
        return found
    encode = {"query": model.encode_query, "document": model.encode_document}.get(route, model.encode)
    rows: NDArray[Any] = encode(list(texts), task=route, show_progress_bar=False).numpy()
    return rows


def _inside(folder: Path, graph: Path) -> str:
    """Return the file as ``file_name`` names it: a route's folder is found by its name."""
    return (
        f"{GRAPH_FOLDER}/{graph.name}"
        if graph.parent.parent.name == GRAPH_FOLDER
        else graph.relative_to(folder).as_posix()
    )


def _size(graph: Path) -> int:
    return sum(path.stat().st_size for path in (graph, *check_onnx_file(graph)))


def _cosines(old: NDArray[Any], new: NDArray[Any]) -> NDArray[np.float64]:  # Any: floating types
    lengths = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    both_empty = (old == 0).all(axis=1) & (new == 0).all(axis=1)
    products = (old * new).sum(axis=1) / np.where(lengths == 0, 1, lengths)
    return np.where(both_empty, 1.0, products).astype(np.float64)


def _overlap(old: NDArray[Any], new: NDArray[Any]) -> float:  # Any: floating types
    """Return the share of the heaviest terms that stay; a text without any keeps all."""
    count = min(TOP_TERMS, int(np.count_nonzero(old)))
    if count == 0:
        return 1.0
    heaviest = (set(np.argsort(-each, kind="stable")[:count].tolist()) for each in (old, new))
    return len(set.intersection(*heaviest)) / count


def _main_figure(model: OnnxSparseEncoder, evaluator: SentenceEvaluator) -> tuple[str, float]:
    """Return the main figure of an evaluator, which imports torch."""
    found = model.evaluate(evaluator)
    if not isinstance(found, dict):
        return "score", float(found)
    name = getattr(evaluator, "primary_metric", None) or next(iter(found))
    return name, float(found[name])
