"""Signals end a command in order, in time and with the right code, whatever the main thread is doing."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rayclean import interrupts
from rayclean.cli import main as cli
from rayclean.interrupts import Interrupts

COMMAND = """
import hashlib, os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup, whose ignored SIGHUP would be inherited
from rayclean import interrupts
from rayclean.cli import main as cli
from rayclean.interrupts import Interrupts

interrupts.GRACE_SECONDS = {grace}
code = 0
with Interrupts("rayclean clean my.toml") as here:
    interrupts.say_kept("runs/a: load done")
    try:
        print("up", flush=True)
        {body}
    except KeyboardInterrupt:
        {end}
    if here.received is not None:
        here.told = True
        print(here.message(), file=sys.stderr)
        code = here.code
sys.exit(code)
"""
SLEEP = "time.sleep(60)"
IN_C = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
"""A loop that never looks for signals."""
OTHER_HANDLER = "signal.signal(signal.SIGINT, lambda *_: None); time.sleep(60); time.sleep(60)"
SWALLOWED = """
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
"""


def command(body: str, end: str = "pass", grace: float = 8.0) -> "subprocess.Popen[str]":
    code = COMMAND.format(body=body.strip(), end=end, grace=grace)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "the end of its terminal")],
)
def test_a_signal_runs_what_is_to_be_done_at_the_end_and_says_how_to_go_on(number: int, name: str) -> None:
    with command(SLEEP, end="print('cleared', flush=True)") as process:
        process.send_signal(number)
        printed, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert printed == "cleared\n"
    assert errors == (
        f"stopped by {name}; finished work is kept (runs/a: load done); go on with: rayclean clean my.toml\n"
    )


@pytest.mark.parametrize(
    "body", [IN_C, OTHER_HANDLER, SWALLOWED], ids=["C loop", "other handler", "swallowed"]
)
def test_a_main_thread_that_does_not_come_back_is_ended_in_time(body: str) -> None:
    with command(body, grace=0.5) as process:
        time.sleep(0.3)  # it is in its loop then; before that, the end is in order
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "finished work is kept (runs/a: load done)" in errors
    assert time.monotonic() - start < 8


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_with_the_code_of_the_first(second: int) -> None:
    with command(SLEEP, end="print('clearing', flush=True); time.sleep(60)", grace=60) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "clearing\n"
        time.sleep(1.5 * interrupts.AGAIN_SECONDS)
        process.send_signal(second)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert errors.count("go on with: rayclean clean my.toml") == 1


@pytest.mark.parametrize("body", [SLEEP, IN_C], ids=["sleep", "C loop"])
def test_a_command_that_cannot_go_on_ends_like_one_that_was_stopped(body: str) -> None:
    fail = "interrupts.fail('fault error: Ray is gone')"
    body = f"import threading; threading.Timer(0.3, lambda: {fail}).start(); {body}"
    with command(body, grace=0.5) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.strip() == (
        "fault error: Ray is gone; finished work is kept (runs/a: load done); go on with: rayclean clean my.toml"
    )


def test_a_signal_after_the_work_ends_at_once() -> None:
    """The interpreter may still wait for a thread of a library."""
    with command("import threading; threading.Thread(target=lambda: time.sleep(60)).start()") as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "Traceback" not in errors


def test_the_message_is_said_once_though_the_interpreter_does_not_end_in_time() -> None:
    stays = "import threading; threading.Thread(target=lambda: time.sleep(60)).start(); time.sleep(60)"
    with command(stays, grace=0.5) as process:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert errors.count("go on with: rayclean clean my.toml") == 1


def test_a_signal_while_the_interpreter_takes_itself_down_changes_no_exit_code() -> None:
    late = "import os, signal\nclass Late:\n    def __del__(self): os.kill(os.getpid(), signal.SIGTERM); print('late')\n"
    code = late + "kept = Late()\n" + COMMAND.format(body="pass", end="pass", grace=8)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "up\nlate\n"), done.stderr


def test_a_signal_that_is_sent_twice_in_a_row_is_one() -> None:
    """As `timeout` does it: to the process, then to its group."""
    with command(SLEEP, end="time.sleep(0.2); print('cleared', flush=True)") as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=30)
    assert (process.returncode, printed) == (143, "cleared\n")


def test_a_background_command_of_a_script_hears_ctrl_c() -> None:
    """A shell without job control starts it with SIGINT ignored; a signal that is sent to it alone means it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = command(SLEEP)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130


def test_handlers_that_a_library_leaves_behind_are_replaced_by_those_before() -> None:
    before = [signal.getsignal(number) for number in interrupts.STOPPING]
    with interrupts.handlers_kept():
        for number in interrupts.STOPPING:
            signal.signal(number, signal.SIG_IGN)
    assert [signal.getsignal(number) for number in interrupts.STOPPING] == before
    with Interrupts("rayclean load") as here:
        assert signal.getsignal(signal.SIGTERM) not in before
    here.close()
    assert [signal.getsignal(number) for number in interrupts.STOPPING] == before
    assert not [each for each in threading.enumerate() if each.name == "rayclean-interrupts"]


def test_of_a_part_nothing_is_said_once_the_whole_is_told() -> None:
    with Interrupts("rayclean sweep my.toml") as here:
        interrupts.say_kept("runs/a: load done")
        interrupts.say_kept("sweeps/b: finished trials", whole=True)
        interrupts.say_kept("sweeps/b/trials/1: load done")
        assert here.kept == "sweeps/b: finished trials"
    here.close()


def test_an_exception_that_was_lost_is_raised_again_at_the_next_look() -> None:
    with Interrupts("rayclean load") as here:
        interrupts.check()
        assert not interrupts.stopping()
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            pass
        else:
            pytest.fail("nothing was raised")
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        assert here.code == 143
    here.close()
    assert not interrupts.stopping()
    interrupts.check()


def test_a_signal_that_python_hears_of_after_the_message_changes_no_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread has heard of it, the message is printed, and only then the handler raises."""

    def late(command: str, debug: bool, here: Interrupts) -> int:
        here.received = signal.SIGTERM
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", late)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 128 + signal.SIGTERM
    assert interrupts._current is not None
    interrupts._current.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_inside_of_a_text_that_is_executed_ends_with_its_code(number: int, tmp_path: Path) -> None:
    """As in `namedtuple`, while modules are imported; CPython would end `python -m` by SIGINT."""
    (tmp_path / "stopped.py").write_text(
        "import os, sys, time\n"
        "from rayclean.cli import main as cli\n"
        f"cli.command_line = lambda *_, **__: exec('os.kill(os.getpid(), {int(number)}); time.sleep(60)', globals())\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stopped"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 128 + number, done.stderr
    assert "go on with" in done.stderr


def test_nothing_is_printed_of_an_interrupt_that_a_finalizer_drops() -> None:
    drop = "(type('Dropped', (), {'__del__': lambda self: os.kill(os.getpid(), signal.SIGTERM)})(), interrupts.check())"
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format(body=f"{drop}; interrupts.check()", end="pass", grace=30)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "Traceback" not in done.stderr
