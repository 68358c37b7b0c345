"""The model of a trial: where its weights come from, and which layers a file describes."""
