"""How files are written: by one writer at a time, whole or not at all, and on the disk before they are named."""
