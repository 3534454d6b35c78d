"""What a run will take before it begins: `rayclean estimate`.

    data_size.py      how many rows the files hold, by their own word or by a part of them
    sampling.py       rows drawn from all of the data, written as a data set of their own
    rehearsal.py      the real verbs on parts of the sample, in a temporary folder, with a clock
    scaling.py        from the sizes that were timed to the size of the data
    verb_times.py     the seconds of each verb, part by part
    questions.py      the questions of `relabel` and of a method, with their tokens and prices
    model_speed.py    how fast a language model answers: measured now, or known from an earlier run
    estimate.py       all of it together

Every figure says where it comes from. Nothing is written to the run folder; what a run has finished already costs nothing.
"""
