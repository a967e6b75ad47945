"""Methods that get all queries of a task at once; see `learner.QueryAware`."""
