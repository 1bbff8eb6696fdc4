"""Teachers and students as networks.

`models`, their first `weights`, their `layers`; `packed` (a ResNet made faster for a CPU).
"""
