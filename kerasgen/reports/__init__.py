"""Pages and notebook views of what was done: a run, its corpus, an evaluation, texts coloured by surprise, proofs.

A page is one HTML file without a network: inline SVG and CSS, and a little JavaScript for what is shown on hover.
"""
