"""Chapter 7 and `python -m helpers.predict`: what a trained network says of other pictures.

`inputs`, `faces`, `face_spec` (how a face comes to a network), `predictor`, `loading`, `in_torch`,
`onnx_session` and `onnx_mtcnn` (both without torch), `command`; `pictures`, `views`.
"""
