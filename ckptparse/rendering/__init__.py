"""Values shown to people: a report in words, and drawings of files."""
