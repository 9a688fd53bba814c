"""What a README says of a trained model of any kind: plain values, how they are set, and the front matter.

What is known only while a model is trained is asked for right before the README is written, from whoever offered to
tell it; nothing is fetched from the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from sparse_encoder.checkpoint.hub_card import LIBRARY
from sparse_encoder.model_card_datasets import DatasetFacts, find_examples, origin
from sparse_encoder.model_card_losses import citations_of, losses_of
from sparse_encoder.model_card_markdown import one_line
from sparse_encoder.model_card_results import EvaluationResult, metric_names, model_index, numbers, result_of

EPOCH, STEP, TRAINING_LOSS, VALIDATION_LOSS = "Epoch", "Step", "Training Loss", "Validation Loss"
"""Keys of a row of the training log."""

_IDENTITY = ("name", "id", "revision", "config", "split")
"""What an author may know better than what a dataset carries."""


@dataclass
class ModelCardData:
    """What is told of a model in its README.

    Args:
        language: Language codes, for example ``"en"`` or ``["en", "de"]``.
        license: Licence identifier, for example ``"apache-2.0"``.
        model_name: Title of the card.
        model_id: Hub id, ``"owner/name"``, for the usage code.
        train_datasets: Datasets the model was trained on: ``{"name": ..., "id": ...}``, one of the two at least. What a
            trainer finds out about them is added.
        eval_datasets: Datasets it was evaluated on, in the same form.
        task_name: What it is for, in words.
        tags: Tags of the card; those that follow from the model and its training are added.
        local_files_only: Whether to stay off the hub. No card asks the hub for anything, so this always holds.
        generate_widget_examples: Whether texts of the training data may be shown for trying the model.
    """

    default_task_name: ClassVar[str] = "retrieval"
    pipeline_tag: ClassVar[str | None] = None

    language: str | list[str] | None = field(default_factory=list)
    license: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    train_datasets: list[DatasetFacts] = field(default_factory=list)
    eval_datasets: list[DatasetFacts] = field(default_factory=list)
    task_name: str | None = None
    tags: list[str] = field(default_factory=list)
    local_files_only: bool = False
    generate_widget_examples: bool = True

    base_model: str | None = field(default=None, init=False)
    base_model_revision: str | None = field(default=None, init=False)
    tasks: list[str] = field(default_factory=list, init=False)
    """Task identifiers of the hub, the main one first; without any the class's own stands in the front matter."""
    non_default_hyperparameters: dict[str, Any] = field(default_factory=dict, init=False)  # plain values
    all_hyperparameters: dict[str, Any] = field(default_factory=dict, init=False)  # likewise
    training_logs: list[dict[str, float]] = field(default_factory=list, init=False)
    """A row per step that has something to tell, with ``Epoch``, ``Step`` and numbers by name."""
    logged_metrics: list[str] = field(default_factory=list, init=False)
    """The names of :attr:`training_logs` that are shown, in their order."""
    log_is_closed: bool = field(default=False, init=False)
    """Whether training is over, after which evaluations add nothing to its log."""
    best_model_step: int | None = field(default=None, init=False)
    eval_results: list[EvaluationResult] = field(default_factory=list, init=False)
    """The last result of each evaluator."""
    citations: dict[str, str] = field(default_factory=dict, init=False)
    """BibTeX entries by what they are the source of."""
    widget: list[dict[str, str]] = field(default_factory=list, init=False)
    usage_examples: list[str] = field(default_factory=list, init=False)
    """A query, and documents to compare it with."""
    co2_eq_emissions: dict[str, Any] | None = field(default=None, init=False)  # numbers and texts
    """Energy that training took, as the hub's front matter has it; ``emissions`` in grams."""
    training_seconds: float | None = field(default=None, init=False)
    """Time of the last run, evaluations included."""
    resumed_at: int | None = field(default=None, init=False)
    """The step from which the last run went on; its time is from there on."""
    evaluation_seconds: float = field(default=0.0, init=False)
    _reporter: Callable[[], None] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check what a README could not hold."""
        self.set_language(self.language or [])
        self.task_name = self.task_name or self.default_task_name
        for dataset in (*self.train_datasets, *self.eval_datasets):
            if not isinstance(dataset, Mapping) or not {"name", "id"} & set(dataset):
                raise ValueError(f'a dataset must be {{"name": ..., "id": ...}} with one of the two, got {dataset!r}')

    def __getstate__(self) -> dict[str, object]:
        """Leave out who tells of a run: copies of a model are not being trained."""
        return {**self.__dict__, "_reporter": None}

    def set_language(self, language: str | list[str]) -> None:
        """Set the language codes."""
        self.language = [language] if isinstance(language, str) else list(language)

    def set_license(self, license: str) -> None:
        """Set the licence identifier."""
        self.license = license

    def add_tags(self, tags: str | Iterable[str]) -> None:
        """Add tags that are not there yet."""
        for tag in [tags] if isinstance(tags, str) else tags:
            if tag not in self.tags:
                self.tags.append(tag)

    def set_model_id(self, model_id: str) -> None:
        """Set the Hub id."""
        self.model_id = model_id

    def set_base_model(self, model_id: str, revision: str | None = None) -> None:
        """Set the model this one started from."""
        self.base_model, self.base_model_revision = model_id, revision

    def set_tasks(self, tasks: str | Iterable[str]) -> None:
        """Set what the model is for by task identifiers of the hub, the main one first."""
        self.tasks = [tasks] if isinstance(tasks, str) else list(tasks)

    def add_train_datasets(self, names: Iterable[str]) -> None:
        """Add datasets that are not there yet, by their hub id."""
        known = {dataset.get("id") for dataset in self.train_datasets}
        self.train_datasets += [{"id": name} for name in dict.fromkeys(names) if name not in known]

    def describe_train_datasets(self, datasets: Iterable[DatasetFacts]) -> None:
        """Add what was found out about the training datasets; what their author said of them stays."""
        self.train_datasets = merged(self.train_datasets, list(datasets))

    def describe_eval_datasets(self, datasets: Iterable[DatasetFacts]) -> None:
        """Add what was found out about the evaluation datasets; what their author said of them stays."""
        self.eval_datasets = merged(self.eval_datasets, list(datasets))

    def infer_datasets(self, dataset: object, dataset_name: str | None = None) -> list[DatasetFacts]:
        """Return the origin of a dataset, or of each in a dict of them, as far as they carry it."""
        if isinstance(dataset, Mapping):
            return [facts for name, each in dataset.items() for facts in self.infer_datasets(each, str(name))]
        facts = origin(dataset)
        return [facts if dataset_name is None else {**facts, "name": dataset_name}]

    def set_losses(self, losses: Iterable[nn.Module]) -> None:
        """Tag the card with losses, those within them included, and cite their papers."""
        every = [each for loss in losses for each in losses_of(loss)]
        self.citations = citations_of(every)
        self.add_tags(f"loss:{type(each).__name__}" for each in every)

    def set_widget_examples(self, dataset: object) -> None:
        """Show short texts of a dataset, or of a dict of them, for trying the model; a stream has none to show."""
        datasets = dataset if isinstance(dataset, Mapping) else {"": dataset}
        self.widget, self.usage_examples = find_examples({str(name): each for name, each in datasets.items()})

    def set_best_model_step(self, step: int) -> None:
        """Set the step that the log shows in bold."""
        self.best_model_step = step

    def set_evaluation_metrics(
        self,
        evaluator: Any,  # noqa: ANN401  (any evaluator)
        metrics: Mapping[str, Any],  # numbers; others are left out
        epoch: float = 0,
        step: int = 0,
    ) -> None:
        """Keep what an evaluator found, in the place of what it found before, and log its primary metric.

        Args:
            evaluator: Who found it; its class, name, description and primary metric are told.
            metrics: By name.
            epoch: When in training this was; -1 outside of it.
            step: Likewise.
        """
        result = result_of(evaluator, metrics)
        replaced = [index for index, each in enumerate(self.eval_results) if each.key == result.key]
        if replaced:
            self.eval_results[replaced[0]] = result
        else:
            self.eval_results.append(result)
        parts = getattr(evaluator, "evaluators", None) or [evaluator]
        names = [getattr(part, "primary_metric", None) for part in parts]
        found = numbers(metrics)
        self.add_log_row(step, epoch, {name: found[name] for name in names if name in found})

    def add_log_row(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Log numbers by name, in the last row if that is of the same step; these names are shown from now on.

        Once the log is closed, only what is of no step of it (-1) is logged.
        """
        if self.log_is_closed and step >= 0:
            return
        self.logged_metrics += [name for name in values if name not in self.logged_metrics]
        if not values:
            return
        if self.training_logs and self.training_logs[-1][STEP] == step:
            self.training_logs[-1].update(values)
        else:
            self.training_logs.append({EPOCH: epoch, STEP: step, **values})

    def ask_before_writing(self, reporter: Callable[[], None] | None) -> None:
        """Call someone right before every README is written, to bring this up to date; ``None`` nobody any more."""
        self._reporter = reporter

    def bring_up_to_date(self) -> None:
        """Call whoever asked to be called before a README is written."""
        if self._reporter is not None:
            self._reporter()

    def dataset_ids(self) -> list[str]:
        """List the hub ids of the training datasets."""
        return list(dict.fromkeys(str(each["id"]) for each in self.train_datasets if each.get("id")))

    def get_default_model_name(self) -> str:
        """Return the title of a card that was given none."""
        return f"Model based on {self.base_model}" if self.base_model else "Model"

    def to_dict(self) -> dict[str, Any]:  # what YAML can hold
        """Return the front matter; what is not known is not in it."""
        values: dict[str, Any] = self._front_matter().to_dict()
        return values

    def to_yaml(self, line_break: str | None = None) -> str:
        """Write the front matter, without its fences."""
        text: str = self._front_matter().to_yaml(line_break=line_break)
        return text.strip()

    def _front_matter(self) -> Any:  # noqa: ANN401  (of huggingface_hub, where it is not annotated)
        from huggingface_hub import ModelCardData as FrontMatter  # heavy, and of use only here

        results = model_index(self.eval_results)
        return FrontMatter(
            language=self.language or None,
            license=self.license,
            library_name=LIBRARY,
            tags=list(self.tags) or None,
            datasets=self.dataset_ids() or None,
            metrics=metric_names(self.eval_results) or None,
            pipeline_tag=self.tasks[0] if self.tasks else self.pipeline_tag,
            base_model=self.base_model,
            model_name=one_line(self.model_name or self.get_default_model_name()) if results else None,
            eval_results=results or None,
            widget=self.widget or None,
            co2_eq_emissions=self.co2_eq_emissions or None,
        )


def merged(told: list[DatasetFacts], found: list[DatasetFacts]) -> list[DatasetFacts]:
    """Join what is on a card about datasets with what was found out about some.

    What an author told belongs to what was found under the same name; if there is as much of both, to what was found
    in the same place. What an earlier training found stays in front, unless it was the same data.
    """
    earlier = [dataset for dataset in told if "columns" in dataset]
    authored = [dataset for dataset in told if "columns" not in dataset]
    by_name = {str(dataset["name"]): dataset for dataset in authored if dataset.get("name")}
    matches = [by_name.get(str(dataset.get("name"))) for dataset in found]
    if len(authored) == len(found) and not any(matches):
        matches = list(authored)
    joined = []
    for dataset, match in zip(found, matches, strict=True):
        known = next((each for each in earlier if _same_data(each, dataset)), {})
        names = {key: value for key, value in known.items() if key in _IDENTITY}
        joined.append({**dataset, **names, **(match or {})})
    used = [id(match) for match in matches if match is not None]
    before = [each for each in earlier if not any(_same_data(each, dataset) for dataset in found)]
    return [*before, *(each for each in authored if id(each) not in used), *joined]


def _same_data(one: DatasetFacts, other: DatasetFacts) -> bool:
    return all(one.get(key) == other.get(key) for key in ("size", "columns", "samples"))
