"""Every method: the registry, and those that LEO is compared with."""
