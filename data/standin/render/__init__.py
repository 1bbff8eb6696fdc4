"""Renders the stand-in dataset: faces in pain and not, with every facial action known."""
