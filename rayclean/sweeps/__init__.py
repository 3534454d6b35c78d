"""Sweeps run the same pipeline under many configs.

`sweep_file` reads a file into the models of `spec`, `space` makes points and trials, and `plan` their configs
and shared verbs. `sweep` runs them: `shared` runs the verbs and `trial` the trials, followed by `observer`
and logged by `tracking`; `resume` continues an earlier attempt. `results` compares and selects, `repeat`
writes configs and commands, and `page/` renders the report.
"""
