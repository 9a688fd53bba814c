"""Autoregressive decoding: models that write, how they choose, and when they stop. Knows nothing of sparse encoding."""

from __future__ import annotations

from sparse_encoder.backbone.cache import DynamicCache, EncoderDecoderCache, StaticCache
from sparse_encoder.generation.causal_language_model import CausalLanguageModel
from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.mixin import GenerationMixin
from sparse_encoder.generation.modes import GenerationMode
from sparse_encoder.generation.outputs import (
    CausalLanguageModelOutput,
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
    Seq2SeqOutput,
)
from sparse_encoder.generation.processors import LogitsProcessor, LogitsProcessorList
from sparse_encoder.generation.processors_bias import NoBadWordsLogitsProcessor, SequenceBiasLogitsProcessor
from sparse_encoder.generation.processors_length import (
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
)
from sparse_encoder.generation.processors_repetition import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)
from sparse_encoder.generation.processors_selection import (
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    PrefixConstrainedLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from sparse_encoder.generation.seq2seq_model import Seq2SeqModel
from sparse_encoder.generation.stopping import (
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    validate_stopping_criteria,
)
from sparse_encoder.generation.streamers import (
    AsyncTextIteratorStreamer,
    BaseStreamer,
    TextIteratorStreamer,
    TextStreamer,
)
from sparse_encoder.generation.transition_scores import compute_transition_scores
from sparse_encoder.generation.warpers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

__all__ = [
    "AsyncTextIteratorStreamer",
    "BaseStreamer",
    "CausalLanguageModel",
    "CausalLanguageModelOutput",
    "DynamicCache",
    "EncoderDecoderCache",
    "EncoderNoRepeatNGramLogitsProcessor",
    "EncoderRepetitionPenaltyLogitsProcessor",
    "EosTokenCriteria",
    "EpsilonLogitsWarper",
    "EtaLogitsWarper",
    "ExponentialDecayLengthPenalty",
    "ForcedBOSTokenLogitsProcessor",
    "ForcedEOSTokenLogitsProcessor",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "GenerationConfig",
    "GenerationMixin",
    "GenerationMode",
    "InfNanRemoveLogitsProcessor",
    "LogitNormalization",
    "LogitsProcessor",
    "LogitsProcessorList",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "MinPLogitsWarper",
    "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "PrefixConstrainedLogitsProcessor",
    "RepetitionPenaltyLogitsProcessor",
    "Seq2SeqModel",
    "Seq2SeqOutput",
    "SequenceBiasLogitsProcessor",
    "StaticCache",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor",
    "TemperatureLogitsWarper",
    "TextIteratorStreamer",
    "TextStreamer",
    "TopHLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TypicalLogitsWarper",
    "compute_transition_scores",
    "validate_stopping_criteria",
]
