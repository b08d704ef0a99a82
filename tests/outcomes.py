"""How a console command ended, and what a test may say of that."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """How a command ended."""

    command: str
    status: int
    out: str
    err: str

    def names(self, *parts):
        """Check for status 2 and one sentence that holds all `parts`."""
        assert self.status == 2, self
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith(f"nnood_{self.command}: error: ")
        assert lines[0].endswith((".", "?"))
        for part in parts:
            assert str(part) in lines[0]

    def refuses(self, *parts):
        """Check for status 2 and argparse's sentence below the usage."""
        assert self.status == 2, self
        assert "Traceback" not in self.err
        assert self.err.startswith(f"usage: nnood_{self.command} ")
        for part in parts:
            assert part in self.err.splitlines()[-1]
