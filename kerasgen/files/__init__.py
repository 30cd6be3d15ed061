"""Write files: one writer at a time, whole or not at all, flushed to the disk."""
