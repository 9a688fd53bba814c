"""Parameter groups, optimizers, schedules and the guarded update."""
