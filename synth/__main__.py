"""``python -m synth`` is ``hrcam-synth``."""

from synth.cli import console

if __name__ == "__main__":
    console()
