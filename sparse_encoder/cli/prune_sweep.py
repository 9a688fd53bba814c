"""``sparse-encoder prune-sweep MODEL COLLECTION``: quality, postings and size of ways to prune, encoding once."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from sparse_encoder.checkpoint import write_bytes, write_json, write_text
from sparse_encoder.cli.collection_options import (
    add_collection_options,
    add_metrics_option,
    chosen_metrics,
    encode,
    new_output,
    open_both,
)
from sparse_encoder.evaluation.pruning import SIDES, csv_table, default_prunings, markdown_table, sweep
from sparse_encoder.evaluation.pruning_plot import figure_class, plot_sweep
from sparse_encoder.search.pruning import Pruning

JSON, CSV, MARKDOWN, PLOT = "sweep.json", "sweep.csv", "sweep.md", "sweep.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which options there are."""
    add_collection_options(parser)
    pruning = parser.add_argument_group("pruning")
    pruning.add_argument(
        "--prunings",
        nargs="+",
        metavar="PRUNING",
        help="none, uint8, top_k=64, ratio=0.1, mass=0.9, threshold=0.2, also with 8 bits behind: top_k=64+uint8; "
        "default: a few of each",
    )
    pruning.add_argument("--side", choices=SIDES, default=SIDES[0], help="what is pruned (default: %(default)s)")
    results = parser.add_argument_group("results")
    results.add_argument("--output", type=Path, metavar="DIR", help=f"write {JSON}, {CSV}, {MARKDOWN} and {PLOT}")
    add_metrics_option(results)
    results.add_argument("--metric", help="of the plot, one of --metrics (default: the first of them)")
    results.add_argument("--no-plot", action="store_true", help="draw no plot, which needs matplotlib")


def run(options: argparse.Namespace) -> None:
    """Read, encode, prune in every way, measure and write.

    Raises:
        ValueError: If an option is out of range or the collection cannot be measured.
        FileNotFoundError: If a model or a collection is not there.
        FileExistsError: If the output folder holds other files.
        NotADirectoryError: If a folder to write to cannot be made.
        PermissionError: If it cannot be written to.
        ImportError: If matplotlib is needed and not installed.
    """
    output = new_output(options.output, (JSON, CSV, MARKDOWN, PLOT))
    chosen = None if options.prunings is None else list(dict.fromkeys(map(Pruning.parse, options.prunings)))
    metrics = chosen_metrics(options)
    plotted = metrics[0] if options.metric is None else options.metric
    if plotted not in metrics:
        raise ValueError(f"--metric must be one of --metrics {metrics}, got {plotted!r}")
    with_plot = output is not None and not options.no_plot
    if with_plot:
        figure_class()  # that it is missing should be known before the work
    evaluated = open_both(options)
    encoded = encode(evaluated, options)
    pruned = encoded.queries if options.side == "queries" else encoded.documents
    prunings = default_prunings(pruned) if chosen is None else chosen
    rows = list(
        tqdm(sweep(encoded, prunings, side=options.side, metrics=metrics), desc="prunings", total=len(prunings))
    )
    print(f"\n{evaluated.title}\n\n{markdown_table(rows)}")
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / JSON, {**evaluated.facts, "side": options.side, "rows": [row.as_dict() for row in rows]})
    write_text(output / CSV, csv_table(rows))
    write_text(output / MARKDOWN, f"{evaluated.title}; pruned: {options.side}\n\n{markdown_table(rows)}")
    (output / PLOT).unlink(missing_ok=True)  # an earlier sweep's
    if with_plot:
        write_bytes(output / PLOT, plot_sweep(rows, plotted, title=evaluated.title))
    print(f"written to {output}")
