"""What surrounds the tensors: graphs, object graphs, meta graphs and state files."""
