"""Chapter 1, and SynPAIN itself: from files of pairs to labelled faces, split by person.

Fetching: `dataset_files`, `hub`, `archives`, `fetch` (the command). Reading: `tree`, `naming`,
`pictures`, `seams`, `duplicates`. Splitting: `folds`, `splits`, `splitting`. All of it: `prepare`.
Shown: `account_views`, `pair_views`.
"""
