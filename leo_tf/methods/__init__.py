"""Every method by name: the registry, and those that LEO is compared with."""
