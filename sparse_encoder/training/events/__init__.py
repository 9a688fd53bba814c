"""Callbacks: the protocol by which others follow and steer a run, and the ready-made ones."""
