"""How files are written: by one writer at a time, whole or not at all, and safely on the disk."""
