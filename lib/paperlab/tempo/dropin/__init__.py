"""Rewriting a model in place to use Tempo's operators or one of the baselines, and undoing it."""
