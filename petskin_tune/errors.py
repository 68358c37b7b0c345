"""The two ways a command ends early, and the exit codes of every command."""

from petskin_tune.printable import LONGEST_SENTENCE, sentence, shortened

EXIT_DONE = 0
EXIT_UNFORESEEN = 1
EXIT_USAGE = 2
EXIT_SUSPENDED = 75  # EX_TEMPFAIL of sysexits.h: work is left, type the same command again


class UsageError(Exception):
    """Wrong usage, or a study that cannot run: one clear sentence for the user, exit code 2, no traceback.

    What it quotes may come from anywhere, so it is one printable line, never longer than a screen, without the secret
    of a URL.
    """

    def __init__(self, said: str) -> None:
        super().__init__(shortened(sentence(said), LONGEST_SENTENCE, LONGEST_SENTENCE * 5 // 8))


class LeaseLost(Exception):
    """This worker no longer owns the trial that it tried to write to; the write did not happen."""
