"""Chapter 6: the test faces one by one.

`choice` (which faces), `rates`, `maps`, `views` (without controls), `cards`, `widgets`.
"""
