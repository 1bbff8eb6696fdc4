"""Looking inside the networks (chapter 5): layers that are alike, and where they look.

`cka`, `saliency`, `regions`, `attribution`; `section` (all of it), `plots`, `readings` (in words).
"""
