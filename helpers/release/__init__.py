"""`python -m helpers.release`: the trained networks of a config as one archive, checked again.

`runs`, `results`, `card`, `archive`, `verify`, `command`.
"""
