"""SavedModels: their directory, their message, and the container of a chunked one."""
