"""What a reader sees: figures, tables in words, chapters' frames, the page, README's headline.

Chapters 3 and 4: `training_views`, `curves`, `one_run`. Chapter 5: `frame`, `plots`, `matrices`,
`samples`, `views`, `readings`, `planning_views`, `ablation_views`, `model_card`. The
page: `report`. README: `headline` (the command).
"""
