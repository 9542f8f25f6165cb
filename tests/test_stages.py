"""What a person sees who waits: which stage is reached, and that time goes on."""

import os
import re
import time

import pytest

from jaxlif.stages import EVERY, stage, stages


def test_stages_leave_their_names_and_times_in_their_order(capsys):
    with stages(True):
        stage("reading")
        with stages(True):  # of a part that could be shown alone
            stage("fit")
        stage("scores")
    said = re.findall(r"(\w+): \d+\.\d s", capsys.readouterr().err)
    assert said == ["reading", "fit", "scores"]


def test_nothing_is_silent_for_two_seconds(capsys):
    with stages(True):
        stage("long")
        time.sleep(2.0)
    drawn = capsys.readouterr().err.count("long (00:")
    assert EVERY < 1.0 and drawn >= 3  # of four signs of life one may come late


def test_nobody_waits_nothing_is_shown(capsys):
    with stages(False):
        stage("reading")
    stage("alone")
    assert capsys.readouterr() == ("", "")


def test_a_failed_stage_leaves_nothing_behind(capsys):
    with pytest.raises(ValueError), stages(True):
        stage("fit")
        raise ValueError
    stage("later")
    assert "later" not in capsys.readouterr().err


def test_a_terminal_without_a_size_shows_them_too(monkeypatch):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    with open(slave, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", terminal)
        with stages(True):
            stage("reading")
        shown = os.read(master, 4096).decode()
    os.close(master)
    assert "(00:0" in shown  # of whichever stage came first
