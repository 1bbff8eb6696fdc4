"""Helpers of the study: one idea a file, called by the notebooks.

Data: `naming`, `splits`, `prepare`, `crops`. Training: `faces`, `augment`, `models`, `losses`,
`engine`, `experiments`, `runs`. Evaluation: `metrics`, `compare`, `external`. Write-up: `figures`,
`prose`, `report`. Shared by all: `errors`, `files`, `parameters`.
"""
