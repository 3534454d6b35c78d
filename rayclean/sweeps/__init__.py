"""Sweeps: the same run under many configs. `spec` reads the file, `space` names the trials, `plan` says what they share
and cost, `trial` runs one, `results` and `report` say what came of them, `tracking` keeps W&B; `sweep` ties it together.

Ray Tune is behind `rayclean.runtime.tune`, which knows nothing of configs.
"""
