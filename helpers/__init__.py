"""Helpers of the study: one idea a file, a folder a part of the study, called by the notebooks.

In the order in which they build on each other, each only on those before it:

Shared by all: the files of this folder. `errors`, `files`, `parameters`, `devices`, `gpus`, `work`,
`interrupts`; `metrics` and `bootstrap` (what is measured, and how sure); `figures` and `prose` (how
it is shown).
`dataset` (01), `cropping` (02), `networks`, `training` (03, 04: the protocol and the distillation),
`pretraining` (the start `faces`).
`evaluation` (05: the comparison), `writeup` (what a reader sees), `inheritance` and `inside` (05),
`explorer` (06).
`predict` (07), `export`, `release`.
"""
