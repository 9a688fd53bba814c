"""Several ways through a model: each input takes the one that its task names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from sparse_encoder.modules.base import InputModule, LoadSettings, Module, checked_flag, set_max_seq_length
from sparse_encoder.modules.own_texts import OwnTexts, given_options
from sparse_encoder.modules.router_files import read_routes, write_routes
from sparse_encoder.modules.vocabulary import check_routes, follow_vocabulary
from sparse_encoder.routes import (
    MODALITY,
    ROUTER_FILE,
    Modality,
    RouteKey,
    check_route_name,
    choose_route,
    sorted_key,
)
from sparse_encoder.tokenizer import TokenBatch, Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class Router(InputModule):
    """Run the modules of one route, chosen by the task, such as ``"query"`` and ``"document"``.

    As the first module of a model it also reads the texts, and its routes begin with modules that do. Further on its
    routes may hold any modules, such as a ``Dense`` for queries and another for documents.

    The first of these that exists is taken: ``route_mappings`` for (task, modality), (task, None), (None, modality) and
    (None, None); the route named like the task; the route named like the modality; ``default_route``. The modality is
    ``"text"`` unless the caller names another. A task that leads nowhere is an error even if there is a default.

    Args:
        sub_modules: The modules of each route, by its name. Routes may share modules.
        default_route: Taken when no task is given.
        allow_empty_key: Whether the first route is the default if none is named.
        route_mappings: Routes by (task, modality), where ``None`` stands for any.

    Raises:
        ValueError: If there are no routes, a route has no modules or an odd name, or a name is no route.
    """

    config_file_name: ClassVar[str] = ROUTER_FILE
    config_keys: ClassVar[tuple[str, ...]] = ("default_route", "allow_empty_key", "route_mappings")
    forward_kwargs: ClassVar[frozenset[str]] = frozenset({"task", "modality"})

    def __init__(
        self,
        sub_modules: Mapping[str, Sequence[nn.Module]],
        default_route: str | None = None,
        allow_empty_key: bool = True,
        route_mappings: Mapping[RouteKey, str] | None = None,
    ) -> None:
        super().__init__()
        if not sub_modules:
            raise ValueError("sub_modules must hold at least one route")
        for name, modules in sub_modules.items():
            check_route_name(name)
            if not modules:
                raise ValueError(f"route {name!r} must have at least one module")
        self.route_mappings = {sorted_key(key): route for key, route in (route_mappings or {}).items()}
        self.allow_empty_key = checked_flag("allow_empty_key", allow_empty_key)
        if default_route is None and allow_empty_key:
            default_route = next(iter(sub_modules))
        self.default_route = default_route
        named = {f"route_mappings{key}": route for key, route in self.route_mappings.items()}
        for where, route in {"default_route": default_route, **named}.items():
            if route is not None and route not in sub_modules:
                raise ValueError(f"{where} must be one of the routes {sorted(sub_modules)}, got {route!r}")
        self.sub_modules = nn.ModuleDict({name: nn.Sequential(*modules) for name, modules in sub_modules.items()})

    @classmethod
    def for_query_document(
        cls,
        query_modules: Sequence[nn.Module],
        document_modules: Sequence[nn.Module],
        default_route: str | None = "document",
        allow_empty_key: bool = True,
    ) -> Self:
        """Make the router of a model that encodes queries and documents differently.

        Args:
            query_modules: The modules of queries.
            document_modules: The modules of documents.
            default_route: Taken when no task is given.
            allow_empty_key: Whether the first route is the default if none is named.
        """
        routes = {"query": query_modules, "document": document_modules}
        return cls(routes, default_route=default_route, allow_empty_key=allow_empty_key)

    def resolve_route(self, task: str | None = None, modality: Modality = MODALITY) -> str:
        """Return the route of a task.

        Args:
            task: Name of the task.
            modality: What kind of input it is.

        Raises:
            ValueError: If none is found; lists what there is.
        """
        return choose_route(
            task, modality, routes=list(self.sub_modules), mappings=self.route_mappings, default=self.default_route
        )

    def route(self, task: str | None = None, modality: Modality = MODALITY) -> list[nn.Module]:
        """Return the modules of the route of a task; otherwise as :meth:`resolve_route`."""
        modules = self.sub_modules[self.resolve_route(task, modality)]
        return list(modules.children())

    @property
    def input_modules(self) -> list[InputModule]:
        """The first module of each route that reads texts, shared ones once."""
        firsts: list[Any] = [next(modules.children()) for modules in self.sub_modules.values()]
        return list({id(module): module for module in firsts if hasattr(module, "preprocess")}.values())

    @property
    def reads_texts(self) -> bool:
        """Whether all routes begin with a module that reads texts, as those of a first module must."""
        return all(hasattr(next(modules.children()), "preprocess") for modules in self.sub_modules.values())

    def forward(
        self,
        features: dict[str, Any],
        task: str | None = None,
        modality: Modality = None,
        **kwargs: Any,  # noqa: ANN401 - options of the modules on the route, which take those they declare
    ) -> dict[str, Any]:
        """Run the modules of a route.

        Args:
            features: As :meth:`preprocess` makes them; their ``task`` and ``modality`` hold if the arguments are
                ``None``.
            task: Name of the task.
            modality: What kind of input it is.
            kwargs: Options of the modules; each gets those that its ``forward_kwargs`` lists.
        """
        task = features.get("task") if task is None else task
        modality = features.get("modality", MODALITY) if modality is None else modality
        options = {**kwargs, "task": task, "modality": modality}
        for module in self.route(task, modality):
            accepted = getattr(module, "forward_kwargs", ())
            features = module(features, **{name: value for name, value in options.items() if name in accepted})
        return features

    def tokenize_batch(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
    ) -> TokenBatch | OwnTexts:
        """Tokenise texts as the route of the task does.

        Raises:
            ValueError: If a module of any route does not know every token of its tokenizer; otherwise as :meth:`route`.
        """
        check_routes(self.sub_modules)
        first: Any = self.route(task)[0]
        batch: TokenBatch | OwnTexts = first.tokenize_batch(texts, prompt=prompt, task=task, max_length=max_length)
        return batch

    def longest_text(self, task: str | None = None) -> int | None:
        """Return the number of tokens at which the route of a task cuts texts; ``None`` if nowhere."""
        first: Any = self.route(task)[0]
        limit: int | None = first.longest_text(task)
        return limit

    def preprocess(
        self,
        inputs: str | Sequence[Any] | Mapping[str, str],
        prompt: str | None = None,
        task: str | None = None,
        max_length: int | None = None,
    ) -> dict[str, Any]:
        """Turn inputs into features as the route of the task does.

        Args:
            inputs: Texts or pairs of texts; or, without a task, ``{task: text}`` each, the same task for all; or a
                single one of them.
            prompt: Put before each text.
            task: Name of the task.
            max_length: Most tokens of a text.

        Returns:
            The features of the route's first module, and ``task`` unless it is ``None``.

        Raises:
            ValueError: If the inputs name different tasks, or as :meth:`tokenize_batch`.
        """
        check_routes(self.sub_modules)
        if isinstance(inputs, Mapping):
            inputs = [inputs]
        if task is None and inputs and isinstance(inputs[0], Mapping):
            items: Sequence[Any] = inputs
            names = {name for item in items for name in item}
            if len(names) != 1:
                raise ValueError(f"all inputs of a call must name the same task, got {sorted(names)}")
            (task,) = names
            inputs = [item[task] for item in items]
        first: Any = self.route(task)[0]
        given = given_options(first.preprocess, prompt=prompt, task=task, max_length=max_length)
        features: dict[str, Any] = first.preprocess(inputs, **given)
        return features if task is None else {**features, "task": task}

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the first route that has one; setting it sets those of all routes."""
        found = (getattr(module, "tokenizer", None) for module in self.input_modules)
        return next((tokenizer for tokenizer in found if tokenizer is not None), None)

    @tokenizer.setter
    def tokenizer(self, value: Tokenizer) -> None:
        for module in self.input_modules:
            module.tokenizer = value

    @property
    def max_seq_length(self) -> int | None:
        """The largest number of tokens that a route takes; setting it sets that of all routes."""
        found = [getattr(module, "max_seq_length", None) for module in self.input_modules]
        lengths = {length for length in found if length is not None}
        if len(lengths) > 1:
            logger.info("the routes cut texts at different numbers of tokens, %s", sorted(lengths))
        return max(lengths, default=None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        set_max_seq_length(self.input_modules, value)

    def get_embedding_dimension(self) -> int | None:
        """Return what the last module that knows says, on the first route where one does."""
        found: dict[str, int] = {}
        for name, modules in self.sub_modules.items():
            follow_vocabulary(modules.children())
            dims = [module.get_embedding_dimension() for module in modules.children() if isinstance(module, Module)]
            if known := [dim for dim in dims if dim is not None]:
                found[name] = known[-1]
        if len(set(found.values())) > 1:
            logger.warning("the routes make embeddings of different widths, %s", found)
        return next(iter(found.values()), None)

    def save(self, folder: str | Path) -> None:
        """Write the modules of all routes, each once, into folders of their own, and which route has which."""
        check_routes(self.sub_modules)
        routes = {name: list(modules.children()) for name, modules in self.sub_modules.items()}
        for modules in routes.values():
            follow_vocabulary(modules)
        write_routes(Path(folder), routes, self.get_config_dict())

    @classmethod
    def load(cls, folder: str | Path, settings: LoadSettings | None = None) -> Self:
        """Load a router and the modules of its routes; a module that routes share is loaded once."""
        settings = settings or LoadSettings()
        if settings.root is None:
            settings = LoadSettings(
                root=Path(folder),
                model_kwargs=settings.model_kwargs,
                processor_kwargs=settings.processor_kwargs,
                config_kwargs=settings.config_kwargs,
            )
        routes, parameters = read_routes(Path(folder), settings)
        return cls.from_config(parameters, Path(folder), parts={"sub_modules": routes})


Asym = Router
"""The name of 5.0 and before."""
