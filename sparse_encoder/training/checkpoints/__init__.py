"""The files of a run: folders that appear whole, their lists, and what they hold."""
