"""Where tensors are written: each module knows one format, and takes tensors one after another."""
