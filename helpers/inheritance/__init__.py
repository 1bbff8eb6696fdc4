"""What a student inherits (chapter 5): weaknesses, errors, the dose of pain.

`corruptions`, `robustness`, `consistency`, `psychometric`, `dose`; `section` (all of it), `plots`,
`readings` (in words).
"""
