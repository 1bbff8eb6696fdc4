"""Helpers of the study: one idea a file, called by the notebooks.

Shared by all: `errors`, `files`, `parameters`, `devices`, `work`.
Fetching SynPAIN: `dataset_files`, `hub`, `archives`, `fetch` (the command).
01: `tree`, `naming`, `pictures`, `seams`, `duplicates`, `folds`, `splits`, `splitting`, `prepare`.
02: `mtcnn`, `detector`, `align`, `crops`; `probes`, `shortcuts`, `small_net` (the audit).
Models: `models`, `weights` (their start), `actions`, `regressors`,
`pretraining_faces`, `pretraining` (the start `faces`).
Training (03, 04): `faces`, `augment`, `feed`, `losses`, `engine`, `inference`, `checkpoints`,
`interrupts`, `watch`, `runs`, `experiments`.
Teachers (04): `teachers`, `packed`, `gate`, `low_precision`, `replay`, `teaching`.
Evaluation (05): `metrics`, `bootstrap`, `compare`, `subgroups`, `tables`, `external`,
`ablations` (which there are), `ablation_tables`, `planning`.
Inheritance (05): `corruptions`, `robustness`, `consistency`, `psychometric`, `dose`, `kept`,
`inheritance`.
Looking inside (05): `trained` (a network from its run), `layers`, `cka`, `saliency`, `regions`,
`attribution`, `inside`.
Exploring (06): `explorer` (which faces), `explorer_rates`, `explorer_maps`, `explorer_views`,
`explorer_cards`, `explorer_widgets` (the controls).
Export: `face_spec` (how a face comes to a network), `export`, `export_int8`, `export_cost`,
`export_table`, `export_plots`, `export_readings`.
Prediction (07): `predict` (the command), `predict_inputs`, `predict_faces`, `predict_models`,
`predict_torch`, `onnx_session`, `onnx_mtcnn` (both without torch), `predict_pictures`,
`predict_views`.
What a reader sees: `figures`, `prose`; `pair_views`, `account_views` (01), `crop_views`,
`probe_views` (02), `training_views`, `curves`, `one_run` (03, 04), `plots`,
`matrices`, `samples`, `views`, `readings`, `writeup`, `inherit_plots`,
`inherit_readings`, `inside_plots`, `inside_readings`, `planning_views`, `ablation_views`,
`model_card` (05), `report` (the page);
`published` (runs that are committed), `headline` and `weights_card` (the two READMEs).
"""
