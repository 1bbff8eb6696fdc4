"""What the notebooks call: one flat package, to be read in this order.

Each file builds only on files above it; one figure's or table's own code stands in its notebook.

- `files`, `stats`, `text`, `parameters`: whole files and clear errors; metrics with intervals;
  numbers as words; what notebooks and configs may be told.
- `naming`, `pairs`, `splits`, `prepare`, `fetch` (chapter 1): what a file's name says; a pair cut
  into two faces; people into splits; the manifest; SynPAIN from its hub.
- `devices`, `crops`, `probes` (chapter 2): the machine and its precision; faces found, aligned and
  cropped; what could be told without looking at a face.
- `runs`, `models`, `faces`, `compare`, `distil`, `train` (chapters 3 to 5): a run's folder and
  identity; networks and their starts; batches of views; arms side by side, as tidy tables; losses,
  teachers and their gate; the loop.
- `plots` (all chapters): one style for all figures.
- `robustness`, `inside` (chapter 6): disturbed faces; layers and where a network looks.
- `explorer`, `predict`, `export` (appendices): faces one by one; other pictures; ONNX.
- `publish`, `page`: what is committed or given away; a study's pages.

A new line goes where its question is asked: a metric into `stats`; what decides a training into
`models`, `faces`, `distil` or `train`, whose code is part of every run's identity; a sentence or a
figure into the notebook that shows it.
"""
