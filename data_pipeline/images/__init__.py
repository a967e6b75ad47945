"""Pictures in: folders of them found, and decoded in processes with limits."""
