"""Chapters 3 and 4: the study's protocol. `experiments` is the way in.

Training: `faces`, `augment`, `feed`, `losses`, `optimisation`, `engine`, `inference`,
`checkpoints`, `watch`.
A run: `runs` (its folder), `trained` (its network). Teaching: `teachers`, `gate`, `low_precision`,
`replay`, `teaching` (in words).
"""
