import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rayclean.functional.lookup import lookup, lookup_values

IDS = st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=20)


@given(keys=IDS, others=IDS, data=st.data())
def test_finds_what_occurs_and_nothing_else(keys: list[int], others: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(keys + others), max_size=30)) if keys + others else []
    ids, sorted_ids = np.array(wanted, np.int64), np.array(sorted(keys), np.int64)
    position, hit = lookup(sorted_ids, ids)
    assert hit.tolist() == [one in keys for one in wanted]
    assert (sorted_ids[position[hit]] == ids[hit]).all()
    values = lookup_values(np.array(keys, np.int64), np.arange(len(keys)), ids, missing=-7)
    assert values.tolist() == [keys.index(one) if one in keys else -7 for one in wanted]
