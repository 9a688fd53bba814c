"""What sentence-transformers 6 keeps for all of its kinds of model, where its scripts import it from."""
