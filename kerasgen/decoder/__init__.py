"""One description of a decoder-only transformer, one block, and the executors that run it."""
