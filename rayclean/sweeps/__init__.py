"""Sweeps: the same run under many configs.

`sweep_file` reads a file into the models of `spec`, `space` makes points and trials of it, `plan` their
configs and the verbs that they share. `sweep` runs them: `shared` the verbs, `remote` and `trial` the trials,
followed by `observer` and logged by `tracking`; `resume` goes on with an earlier attempt. `results` compares
and chooses, `repeat` writes configs and commands, `page/` shows everything.
"""
