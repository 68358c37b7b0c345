"""The two ways a command ends early, and the exit codes of every command."""

EXIT_DONE = 0
EXIT_UNFORESEEN = 1
EXIT_USAGE = 2
EXIT_SUSPENDED = 75  # EX_TEMPFAIL of sysexits.h: work is left, type the same command again


_LONGEST = 1800  # characters: a screen of 80 times 24


class UsageError(Exception):
    """Wrong usage, or a study that cannot run: one clear sentence for the user, exit code 2, no traceback.

    The middle of a sentence that is longer than a screen is left out: what it quotes may be of any length.
    """

    def __init__(self, sentence: str) -> None:
        if len(sentence) > _LONGEST:
            sentence = f"{sentence[: _LONGEST // 2]} … {sentence[-_LONGEST // 3 :]}"
        super().__init__(sentence)


class LeaseLost(Exception):
    """This worker no longer owns the trial that it tried to write to; the write did not happen."""
