"""For kerasgen: a corpus of Markdown notes, eta sampling, and a format that NumPy alone runs."""
