"""Methods by name: the registry, LEO, and the methods LEO is compared with."""
