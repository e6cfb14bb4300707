"""Whole jobs on tensors, wherever they come from and go to: none of them knows a format."""
