"""The embedded data set: characters of many scripts, drawn from fonts."""
