"""Where the network of a finished run is."""

from rayclean.folder import Folder


def trained_model(folder: str) -> str:
    """The folder of the network that a run has trained, where the folder of a run is named; any other folder as it is.

    Args:
        folder: path or URL, such as `runs/tickets` or `runs/tickets/train/model`.
    """
    run = Folder(folder)
    return run.url("train", "model") if run.exists("train", "model") else folder
