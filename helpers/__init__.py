"""Helpers of the study: one idea a file, called by the notebooks.

Shared by all: `errors`, `files`, `parameters`, `devices`, `work`.
Fetching SynPAIN: `dataset_files`, `hub`, `archives`, `fetch` (the command).
Data: `naming`, `seams`, `pictures`, `splits`, `prepare` (01); `align`, `crops` (02).
Training: `faces`, `augment`, `models`, `losses`, `engine`, `runs`, `experiments` (03, 04).
Evaluation: `metrics`, `bootstrap`, `compare`, `tables`, `external` (05).
What a reader sees: `figures`, `prose`; `pair_views` (01), `crop_views` (02), `training_views`,
`curves`, `one_run` (03, 04), `plots`, `matrices`, `samples`, `views`, `readings`, `writeup` (05),
`report` (the page).
"""
