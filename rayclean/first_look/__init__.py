"""A first look at a table that has no config yet: `rayclean init`, and the columns that a command names when none are given.

    reading.py        the first rows of the files, by the readers of `rayclean.datasets`
    profiles.py       what a column holds: kinds of values, how many differ, how long they are
    column_names.py   what the name of a column says
    guess.py          which columns hold text, label, id, truth and group, and why
    label_guess.py    the label among them: one class, sets of classes, or tags
    label_look.py     the labels and texts themselves, counted
    proposed_config.py  all of it together, as the values of a config
    oddities.py       what looks odd, in sentences
    toml_page.py      the config as a commented TOML file
    page_checks.py    whether `load` accepts that file; written whole or not at all

Everything is guessed from at most `reading.MOST_ROWS` rows, whose number is said beside each guess. No model is run, and
nothing is written but the config.
"""
