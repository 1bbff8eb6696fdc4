"""`python -m helpers.export`: a student as an ONNX file, and what that costs and saves.

`onnx_file` (the command), `metadata`, `int8`, `cost`, `table`; `plots`, `readings` (chapter 5).
"""
