"""The command line in this process: what `rayclean ...` prints and how it ends, without importing everything anew."""

import sys
from dataclasses import dataclass

import pytest

from rayclean.cli import main as cli


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def run_command(
    *arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Ended:
    """Run `rayclean` with these arguments as `main` does; its handlers of signals are gone afterwards."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["rayclean", *arguments])
        patch.setattr(cli.Interrupts, "__exit__", lambda self, *_: self.close())
        patch.setattr(cli.logging, "basicConfig", lambda **_: None)
        patch.setenv("COLUMNS", "200")
        capsys.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
    printed = capsys.readouterr()
    return Ended(code if isinstance(code, int) else int(code is not None), printed.out, printed.err)
