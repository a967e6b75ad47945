"""The release's pickles, read by a reader that runs nothing."""
