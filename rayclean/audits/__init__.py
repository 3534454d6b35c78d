"""An auditor, a person whose judgement counts as the truth, looks at a few dozen labels, and all others profit.

What is asked is drawn (`draw`) and written as a `form`; what comes back goes into the ledger (`answers`), and from there into
the decisions of relabel (`settle`), into figures with intervals (`rates`) and into a statement about the changed labels
(`certificate`). `commands` holds `rayclean audit` and `rayclean certify`; an `oracle` answers in experiments.
"""
