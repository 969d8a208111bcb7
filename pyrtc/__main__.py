"""`python -m pyrtc`: the command `pyrtc`, for an interpreter whose scripts are not on the PATH."""

from pyrtc.cli.main import program

if __name__ == "__main__":
    program()
