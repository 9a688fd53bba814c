"""The energy of a run and its emissions, by CodeCarbon, for the model's card; measures nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparse_encoder.training.events.protocol import Arguments, Context, TrainerCallback
from sparse_encoder.training.events.reporting import require_tracker
from sparse_encoder.training.state import TrainerControl, TrainerState


class CodeCarbonCallback(TrainerCallback):
    """Measure from the start of a run to its end; the first process of each machine does so.

    CodeCarbon writes ``emissions.csv`` into ``args.output_dir``. A model card that has ``co2_eq_emissions`` gets the
    figures: grams of CO2 equivalents, and kWh of energy.
    """

    def __init__(self) -> None:
        self._codecarbon = require_tracker("codecarbon")
        self.tracker: Any = None  # of an optional package

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Begin to measure."""
        self.release()
        if state.is_local_process_zero:
            Path(str(args.output_dir)).mkdir(parents=True, exist_ok=True)
            self.tracker = self._codecarbon.EmissionsTracker(output_dir=str(args.output_dir))
            self.tracker.start()

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **context: Context) -> None:
        """Stop, and tell the model's card."""
        tracker, self.tracker = self.tracker, None
        if tracker is None or tracker.stop() is None:  # None: it could not measure, and has said so
            return
        card: Any = getattr(context["model"], "model_card_data", None)  # cards of other models are not ours
        if hasattr(card, "co2_eq_emissions"):
            card.co2_eq_emissions = emissions_of(tracker.final_emissions_data)

    def release(self) -> None:
        """Stop to measure a run that has not come to its end."""
        tracker, self.tracker = self.tracker, None
        if tracker is not None:
            tracker.stop()


def emissions_of(data: Any) -> dict[str, Any]:  # noqa: ANN401  (EmissionsData, of an optional package)
    """Return what CodeCarbon measured under the names of a model card's metadata."""
    figures = {
        "emissions": float(data.emissions) * 1000,  # kilograms to grams
        "energy_consumed": float(data.energy_consumed),
        "source": "codecarbon",
        "training_type": "fine-tuning",
        "on_cloud": data.on_cloud == "Y",
        "cpu_model": data.cpu_model,
        "ram_total_size": data.ram_total_size,
        "hours_used": round(float(data.duration) / 3600, 3),
    }
    return {**figures, "hardware_used": data.gpu_model} if data.gpu_model else figures
