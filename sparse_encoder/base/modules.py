"""The modules of all kinds of model, where scripts for sentence-transformers 6 import them from."""

from __future__ import annotations

from sparse_encoder.modules import Dense, InputModule, Module, Normalize, Router, Transformer

__all__ = ["Dense", "InputModule", "Module", "Normalize", "Router", "Transformer"]
