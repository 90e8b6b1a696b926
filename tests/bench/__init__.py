"""`python -m tests.bench`: the engine against what people use today, as ratios from interleaved runs.

`baselines` are the other ways to the same pictures, `parts` what is measured, `measure` how.
"""
