"""Hostile adapters: the rows of weights and configurations, for PEFT's two files."""

from __future__ import annotations

from checkpoint_helpers import BAD_SAFETENSORS
from hostile_helpers import Case, Run, both, door, file, hole, link, pipe, room, saved, values

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BY = ("adapter",)

ADAPTER_CASES = [
    *(
        Case(f"adapter: {name}", (13, 14, 15, 17, 20), BY, file(WEIGHTS, content), "CheckpointError")
        for name, (content, _) in BAD_SAFETENSORS.items()
    ),
    *(
        Case(f"adapter: {what.__name__} {name}", (5, 19), BY, what(name), error)
        for what in (pipe, room, door, link)
        for name, error in ((CONFIG, "ConfigError"), (WEIGHTS, "CheckpointError"))
    ),
    Case(
        "an adapter of a pickle that runs",
        (1,),
        BY,
        both(lambda folder: (folder / WEIGHTS).unlink(), file("adapter_model.bin", saved({"a": Run()}))),
        "CheckpointError",
        "weights_only=True",
    ),
    Case("an adapter beside a pickle", (2,), BY, file("adapter_model.bin", b"x"), None, closed="adapter_model.bin"),
    Case("adapter config of a gigabyte", (21,), BY, hole(CONFIG, 1 << 30), "ConfigError", "larger than"),
    *(
        Case(f"adapter: {name} is {value!r:.40}", (22, 23, 25), BY, values(CONFIG, **{name: value}), error)
        for name, value, error in (
            ("peft_type", "os.system", "ConfigError"),
            ("peft_type", ["LORA"], "ConfigError"),
            ("r", -1, "ConfigError"),
            ("r", 10**12, "ConfigError"),
            ("r", "8", "ConfigError"),
            ("r", True, "ConfigError"),
            ("r", 5, "CheckpointError"),
            ("lora_alpha", 1e300, "ConfigError"),
            ("lora_alpha", None, "ConfigError"),
            ("lora_dropout", 2.0, "ConfigError"),
            ("bias", "os.system", "ConfigError"),
            ("alpha_pattern", {"(a+)+$": 3}, "ConfigError"),
            ("alpha_pattern", {"x": "y"}, "ConfigError"),
            ("layers_pattern", "(a+)+$", "ConfigError"),
            ("target_modules", 5, "ConfigError"),
            ("target_modules", ["nothing"], "CheckpointError"),
            ("modules_to_save", ["os.system"], None),  # no module is called so, and nothing is copied
            ("init_lora_weights", "pissa", "ConfigError"),
            ("loftq_config", {"evil": 1}, "ConfigError"),
            ("base_model_name_or_path", 5, "ConfigError"),
            ("auto_mapping", {"is_causal": 1}, "ConfigError"),
            ("auto_mapping", {"is_causal": True}, "CheckpointError"),  # of an encoder
            ("auto_mapping", [1], "ConfigError"),
        )
    ),
    Case(
        "an adapter that asks for code",
        (24,),
        BY,
        values(CONFIG, auto_mapping={"base_model_class": "Evil", "parent_library": "modeling_evil"}),
        None,
    ),
]
