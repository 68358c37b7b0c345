"""Which segment to train next: a Gaussian process over (configuration, epoch), and knowledge gradient per epoch.

A trial is trained in segments, from rung to rung. Whenever a worker is free, the search chooses between all frozen
trials and new points: the segment wins that promises the most knowledge about the best last epoch, per epoch trained.
Everything here is a pure function of a :class:`~petskin_tune.search.freeze_thaw.state.SearchState`: numpy and scipy,
no memory, no clock. The path of the data:

    state -> encoding, observations -> kernel, likelihood, fit -> posterior -> candidates, gain -> choice, recommend

Sources: K. Swersky, J. Snoek, R. Adams, Freeze-Thaw Bayesian Optimization (2014), for the idea and the name;
P. Frazier, W. Powell, S. Dayanik, The Knowledge-Gradient Policy for Correlated Normal Beliefs (2009), for the gain;
D. Ginsbourger, R. Le Riche, L. Carraro, Kriging Is Well-Suited to Parallelize Optimization (2010), for fantasies.
"""
