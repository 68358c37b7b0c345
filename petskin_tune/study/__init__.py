"""What is searched: the study file, the search space, the study in the database and its trials."""
