"""The Optuna dashboard, served with notes, pictures and curves."""
