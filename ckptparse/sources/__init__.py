"""Where tensors come from besides checkpoints: each module reads one format of others."""
