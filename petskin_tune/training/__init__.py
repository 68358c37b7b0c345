"""The only room that imports torch and ultralytics: one trial's training, resumable at any batch. No SQL, no Optuna."""

from petskin_tune.training.process import environment as environment  # before anything here imports ultralytics
