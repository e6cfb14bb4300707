"""The small codes under both checkpoint formats: varints, masked CRC-32C, order-preserving keys."""
