"""The six verbs, one file each: `load -> predict -> detect -> relabel -> train -> evaluate`.

Every file has the same three names, called by `rayclean.pipeline`:

    VERSION                         part of the fingerprint: raised when the code changes what the verb writes
    validate(config, run)           cheap checks before anything expensive; raises ConfigError or DataError
    run(config, run, out) -> dict   does the work into the partial folder `out` (which may hold finished shards of a
                                    crashed attempt of the same fingerprint: they are kept) and returns its metrics

A verb reads only the finished folders of the verbs before it (`run.require("load")`). Ray is connected when `run`
is called.
"""
