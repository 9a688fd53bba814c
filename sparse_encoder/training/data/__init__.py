"""Rows of datasets become batches: reading, names, prompts, tokenizing, loaders."""
