"""What LEO is compared with, on the same episodes: each a `Learner`."""
