"""The six verbs, one file each: `load -> predict -> detect -> relabel -> train -> evaluate`.

Every file has the same four names, called by `rayclean.pipeline`:

    VERSION                         part of the fingerprint: raised when the code changes what the verb writes
    validate(config, run)           cheap checks before anything expensive; raises ConfigError or DataError
    needs(config, run)              what it holds while it runs (workers, a language model), and roughly how long it takes
    run(config, run, out, engines)  does the work into the partial folder `out` (which may hold finished shards of a
                                    crashed attempt of the same fingerprint: they are kept) and returns its metrics

A verb reads only the finished folders of the verbs before it (`run.require("load")`). Whatever is heavy goes
through `engines`, which run it in this process or on Ray.
"""
