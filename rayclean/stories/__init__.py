"""What happened to one example, from its row in the data to the model trained on it: `rayclean.log`.

    finding.py     which example is meant, by key, row, id or a part of its text
    events.py      the events of a story, each a typed record
    subject.py     the example itself: its shard, its units, its row in every table
    learning.py    what predict, detect and train made of it
    asking.py      what an annotator was asked about it, and what it said
    deciding.py    decisions, auditors' answers, reverts and the final label
    story.py       all events in order of time

Only reading: a story changes nothing, asks nobody and starts no model. Of every table only the shard that holds the example is
read; ids, copies and features are looked through shard by shard.
"""
