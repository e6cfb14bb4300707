"""Harnesses that feed `ckptparse` what no writer ever wrote."""
