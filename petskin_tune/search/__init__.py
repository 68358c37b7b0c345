"""Which configuration to try next, and which to give up: pure functions of a study's trials, on top of Optuna."""
