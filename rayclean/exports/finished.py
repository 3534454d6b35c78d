"""Whether a run is far enough for what is asked of it, under its config and the data as they are now."""

from rayclean.config import Config
from rayclean.config.export_section import OnlyRows
from rayclean.errors import ArtifactError
from rayclean.run import Run


def check_finished(
    config: Config,
    run: Run,
    expected: dict[str, str],
    only: OnlyRows = "all",
    *,
    suspects_alone: bool = False,
) -> bool:
    """Stop unless the run holds what is asked for.

    Args:
        config: of the run.
        run: its folder.
        expected: fingerprints under the config and the data as they are now.
        only: which rows are asked for.
        suspects_alone: whether nothing but what detect found is asked for.

    Returns:
        Whether labels were decided; otherwise detect is finished, relabel has not run, and labels are the given ones.

    Raises:
        ArtifactError: a verb is not finished, or was made from another config or other data.
    """
    scored = config.predict.mode == "model" and not suspects_alone
    undecided = suspects_alone or (run.manifest("relabel") is None and only in ("all", "suspects"))
    needed = ("load", "detect") if undecided else ("load", "detect", "relabel")
    for verb in ("load", "predict") if scored else needed:
        if run.done(verb, expected[verb]):
            continue
        if run.manifest(verb) is None:
            raise ArtifactError(
                f"{run.url(verb)} is missing or unfinished: run `rayclean clean` (or `rayclean {verb}`) first"
            )
        raise ArtifactError(
            f"{run.url(verb)} was made from another config, or the data have changed since: run `rayclean clean` again, so that "
            "every label belongs to its row"
        )
    return scored or run.done("relabel", expected["relabel"])
