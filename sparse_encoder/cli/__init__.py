"""The command line: ``sparse-encoder COMMAND``, one file per command. Uses the library as anybody else would."""
