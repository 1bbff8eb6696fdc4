"""Chapter 5's numbers: the arms side by side, with intervals.

`compare` (the way in), `subgroups`, `tables`, `planning`, `external` (faces of another source),
`ablations` (which there are), `ablation_tables`; `kept` and `published` (what is committed).
"""
