"""Uploading a folder to a repository of the Hugging Face hub, in one commit.

The token comes from `HF_TOKEN` or from `hf auth login`; it stands in no message. The address is that of `HF_ENDPOINT`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rayclean.errors import ConfigError, RaycleanError, ResourceError

RepositoryKind = Literal["model", "dataset"]
"""Kinds of repositories."""


@dataclass(frozen=True)
class Pushed:
    """A finished push."""

    url: str
    """Address of the repository, or of its branch."""
    commit: str
    """The commit with all of it."""
    private: bool
    """Whether only who has access sees it."""


def upload(
    files: Mapping[str, Path | bytes],
    repository: str,
    kind: RepositoryKind,
    *,
    private: bool,
    revision: str | None,
    is_own: Callable[[str], bool],
    message: str,
) -> Pushed:
    """Put files into a repository, which is made if it is not there. They appear together, in one commit, or not at all.

    Args:
        files: content, or a local file with it, by path in the repository.
        repository: `user/name` or `organisation/name`.
        kind: of the repository.
        private: whether a repository that is made is private; one that is there must be.
        revision: branch, which is made if it is not there; None: `main`.
        is_own: whether a path may come from an earlier push: what is not among `files` any more is removed.
        message: of the commit.

    Raises:
        ConfigError: the name, the token or its rights are wrong, or a public repository was to be private.
        ResourceError: the hub cannot be reached, or failed.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    _check_name(repository)
    if not get_token():
        raise ConfigError(
            "there is no token for the Hugging Face hub: set HF_TOKEN to one that may write "
            "(https://huggingface.co/settings/tokens), or run `hf auth login`"
        )
    api = HfApi(library_name="rayclean")
    with _explained(api.endpoint, repository):
        api.create_repo(repository, repo_type=kind, private=private or None, exist_ok=True)
        is_private = bool(api.repo_info(repository, repo_type=kind).private)
        if private and not is_private:
            raise ConfigError(
                f"{repository} is there already and is public, though --private was given; nothing was pushed: make it private "
                f"in its settings ({api.endpoint}), or push to another name"
            )
        if revision is not None:
            api.create_branch(repository, repo_type=kind, branch=revision, exist_ok=True)
        there = api.list_repo_files(repository, repo_type=kind, revision=revision)
        operations: list[Any] = [
            CommitOperationAdd(
                path_in_repo=path, path_or_fileobj=content if isinstance(content, bytes) else str(content)
            )
            for path, content in files.items()
        ]
        operations += [
            CommitOperationDelete(path_in_repo=path) for path in there if is_own(path) and path not in files
        ]
        done = api.create_commit(
            repository, operations, repo_type=kind, revision=revision, commit_message=message
        )
    prefix = "datasets/" if kind == "dataset" else ""
    branch = "" if revision is None else f"/tree/{revision}"
    return Pushed(f"{api.endpoint}/{prefix}{repository}{branch}", done.oid, is_private)


def _check_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
        valid = repository.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise ConfigError(
            f"{repository!r} names no repository: expected user/name or organisation/name, of letters, digits, '-', '_' and '.'"
        )


@contextmanager
def _explained(endpoint: str, repository: str) -> Iterator[None]:
    """Turn what the hub and the network answer into messages that say what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ResourceError(
            "the Hugging Face hub is switched off by HF_HUB_OFFLINE; unset it, then push again"
        ) from error
    except RaycleanError:
        raise
    except Exception as error:
        chain = _causes(error)
        answered = next((each for each in chain if isinstance(each, HfHubHTTPError)), None)
        if answered is not None:
            raise _refusal(answered, endpoint, repository) from error
        unreachable = next((each for each in chain if _of_transport(each)), None)
        if unreachable is not None:
            raise ResourceError(
                f"{endpoint} cannot be reached ({type(unreachable).__name__}); nothing was published: check the network and "
                "HF_ENDPOINT, then push again"
            ) from error
        if isinstance(error, (RuntimeError, ValueError)):  # of the transfer of large files
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise ResourceError(
                f"the upload to {repository} failed ({said}); nothing was published: push again"
            ) from error
        raise


def _causes(error: BaseException) -> Sequence[BaseException]:
    """An error and what it came from."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _of_transport(error: BaseException) -> bool:
    """Whether an error is of the connection: the client's own (its library has changed its name) or the system's."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _refusal(error: Any, endpoint: str, repository: str) -> RaycleanError:
    """What an answer of the hub means."""
    status, said = error.response.status_code, (error.server_message or "").strip()
    said = f" ({said.splitlines()[0][:300]})" if said else ""
    if status == 401:
        return ConfigError(
            f"{endpoint} does not accept the token{said}: set HF_TOKEN to a valid one, or run `hf auth login`"
        )
    if status == 403:
        return ConfigError(
            f"the token may not write to {repository}{said}: use one with the right to write there "
            "(https://huggingface.co/settings/tokens), or push to a name of your own"
        )
    if status == 404:
        return ConfigError(
            f"{endpoint} knows no {repository} that the token can see{said}: check the user or organisation before the '/', "
            "and the revision"
        )
    if status < 500:
        return ConfigError(
            f"{endpoint} refused the push to {repository} with {status}{said}; mend that, then push again"
        )
    return ResourceError(f"{endpoint} failed with {status}{said}; nothing was published: push again later")
