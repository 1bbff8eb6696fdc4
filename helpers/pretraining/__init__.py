"""The start `faces`: every backbone regresses facial actions on rendered people.

`rendered` (the faces), `actions` (the targets), `regressors`, `regression` (the command
`python -m helpers.pretraining`); `weights_card` and `scratch_card` in data/README.md.
"""
