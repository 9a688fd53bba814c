"""How a SparseEncoder works on texts: prompts, batches, worker processes, a look into what comes out."""
