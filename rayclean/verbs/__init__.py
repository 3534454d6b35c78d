"""The six verbs, one file each: `load -> predict -> detect -> relabel -> train -> evaluate`.

Every file defines four names that `rayclean.pipeline` uses:

    VERSION                         part of the fingerprint, raised when the code changes the output
    validate(config, run)           cheap checks before expensive work; raises ConfigError or DataError
    needs(config, run)              its resources (workers, a language model) and approximate duration
    run(config, run, out, engines)  writes its output to the partial folder `out`, which may hold finished
                                    shards of an earlier attempt with the same fingerprint, and returns
                                    its metrics

A verb reads only the finished folders of the verbs before it (`run.require("load")`). Expensive work goes
through `engines`, which run it in this process or on Ray.
"""
