"""The tree of exceptions is what its docstring draws, and what callers catch."""

import errno
import pickle
import re

import pytest

import pyrtc
from pyrtc import errors
from pyrtc.errors import PyrtcError, StartError, reason

CLASSES = [getattr(errors, name) for name in errors.__all__]


def drawn():
    """(depth, class, other bases) of each line of the drawing."""
    lines = re.findall(r"^    ([│ ]*)(?:[├└]── )?(\w+)(?: \((\w+)\))? *(.*)$", errors.__doc__, re.MULTILINE)
    return [(len(indent) // 4 + (name != "PyrtcError"), name, other) for indent, name, other, _text in lines]


def test_the_drawing_shows_every_class_below_its_base():
    path = []
    for depth, name, other in drawn():
        cls = getattr(errors, name)
        path[depth:] = [cls]
        if depth:
            assert cls.__bases__[0] is path[depth - 1], name
        assert [base.__name__ for base in cls.__bases__[1:]] == ([other] if other else [])
    assert {name for _, name, _ in drawn()} == set(errors.__all__)


def test_all_are_public_and_one_tree():
    for cls in CLASSES:
        assert issubclass(cls, PyrtcError)
        assert getattr(pyrtc, cls.__name__) is cls
        assert cls.__doc__
    classes = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert classes == set(CLASSES)


@pytest.mark.parametrize(("name", "code"), [("CommandNotFound", 127), ("CommandNotExecutable", 126)])
def test_exit_codes(name, code):
    assert getattr(errors, name)("x").exit_code == code


def test_the_other_exit_code_is_125():
    others = [cls for cls in CLASSES if not cls.__name__.startswith("CommandNot")]
    assert {cls.exit_code for cls in others} == {125}


def test_start_errors_carry_step_and_errno():
    error = StartError("text", step="mount /proc", errno=errno.EPERM)
    assert (str(error), error.step, error.errno) == ("text", "mount /proc", errno.EPERM)
    assert (StartError("text").step, StartError("text").errno) == ("", 0)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls.__name__ != "ContainerFailed"])
def test_errors_survive_the_way_between_processes(cls):
    copy = pickle.loads(pickle.dumps(cls("text")))
    assert type(copy) is cls
    assert str(copy) == "text"


def test_details_survive_it_too():
    copy = pickle.loads(pickle.dumps(StartError("text", step="exec", errno=2)))
    assert (copy.step, copy.errno) == ("exec", 2)
    done = pyrtc.Completed("id", ("a",), 1, pyrtc.Outcome.EXITED, pyrtc.Usage(1, 1, 1, 0))
    copy = pickle.loads(pickle.dumps(pyrtc.ContainerFailed("text", done)))
    assert (str(copy), copy.completed) == ("text", done)


@pytest.mark.parametrize(
    ("code", "text"),
    [(errno.ENOENT, "No such file or directory (ENOENT)"), (errno.EPERM, "Operation not permitted (EPERM)")],
)
def test_reason(code, text):
    assert reason(code) == text


def test_numbers_without_a_name():
    assert reason(99999) == "error 99999"
